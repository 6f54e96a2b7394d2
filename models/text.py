"""Real English text as feeds of a BERT-like model: 20 Newsgroups, in bert-uncased word pieces.

Calibration texts come from the train half, held-out texts from the test half, which is later in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.fetch import fetch

BATCH, LENGTH = 8, 128  # texts a feed, word pieces a text
Feed = dict[str, npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Post:
    """One message of a newsgroup."""

    group: str
    text: str


def posts(half: str, count: int, *, seed: int = 0) -> list[Post]:
    """`count` messages drawn without replacement from `half` ("train" or "test"), the same ones every time.

    Raises:
        FetchError: the corpus cannot be had.
    """
    lines = fetch(f"newsgroups-{half}").read_text(encoding="utf-8").split("\n")[3:]  # names, types, roles
    rows = [Post(*line.split("\t", 1)) for line in lines if "\t" in line]
    rows = [row for row in rows if row.text.strip()]
    chosen = np.random.default_rng(seed).choice(len(rows), size=count, replace=False)
    return [rows[i] for i in chosen]


def feeds(texts: Sequence[str]) -> list[Feed]:
    """`texts` as feeds of `input_ids` and `attention_mask`, int64 [BATCH, LENGTH]; a last short batch is left out.

    Longer texts are cut, shorter ones padded.

    Raises:
        FetchError: the tokenizer cannot be had.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(fetch("bert-uncased-tokenizer")))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH, pad_id=tokenizer.token_to_id("[PAD]"), pad_token="[PAD]")
    encoded = tokenizer.encode_batch(list(texts))
    ids = np.array([e.ids for e in encoded], np.int64)
    mask = np.array([e.attention_mask for e in encoded], np.int64)
    starts = range(0, len(encoded) - BATCH + 1, BATCH)
    return [{"input_ids": ids[i : i + BATCH], "attention_mask": mask[i : i + BATCH]} for i in starts]


def write(batches: Sequence[Feed], folder: Path) -> Path:
    """Write one .npz a feed into `folder`, the form that `--data` reads. Feeds of an earlier run are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.npz"):
        old.unlink()
    for i, feed in enumerate(batches):
        np.savez(folder / f"{i:03}.npz", **feed)  # type: ignore[arg-type]
    return folder
