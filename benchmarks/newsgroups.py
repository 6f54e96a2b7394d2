"""20 Newsgroups as a test of sentence embeddings: the nearest of twenty centroids names the group.

Of each group, in an order drawn once: 40 training posts make the centroid, the next 8 calibrate (160 in all). 600 posts
of the test half, which is later in time, are classified. Nothing that calibrates is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from models.fetch import fetch
from models.text import Feed
from sparsify.runtime import Session

CENTROID, CALIBRATION, TEST = 40, 8, 600  # posts: of a group, of a group, in all
LENGTH, BATCH = 64, 16  # word pieces a text at most, texts a feed
WINDOWS, _LEAST = 6, 16  # of a calibration post; word pieces that a second window must have
OUTPUT = "sentence_embedding"
Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Corpus:
    """The posts, by what they are for; `calibration` and `centroid` go group by group."""

    centroid: list[str]
    calibration: list[str]
    test: list[str]
    labels: npt.NDArray[np.int64]  # [TEST], index of the group
    groups: int


@dataclass(frozen=True)
class Score:
    """How embeddings do.

    Attributes:
        accuracy: share of test posts whose group was found.
        cosine: mean cosine to the embeddings of the base; `worst` the lowest.
        flips: share of test posts that the base and this one put into different groups.
    """

    accuracy: float
    cosine: float
    worst: float
    flips: float


@dataclass(frozen=True)
class Embedded:
    """Unit vectors of the test posts [TEST, D], and the group that each was put into [TEST]."""

    vectors: Matrix
    predicted: npt.NDArray[np.int64]


@cache
def corpus() -> Corpus:
    """The same posts every time.

    Raises:
        FetchError: the corpus cannot be had.
    """
    train, test = _rows("train"), _rows("test")
    draw = np.random.RandomState(0)  # the legacy generator: figures published for this split were drawn with it
    tests = [test[i] for i in draw.permutation(len(test))[:TEST]]
    by_group: dict[str, list[str]] = {}
    for i in draw.permutation(len(train)):
        by_group.setdefault(train[i][0], []).append(train[i][1])
    groups = sorted(by_group)
    return Corpus(
        centroid=[t for g in groups for t in by_group[g][:CENTROID]],
        calibration=[t for g in groups for t in by_group[g][CENTROID : CENTROID + CALIBRATION]],
        test=[text for _, text in tests],
        labels=np.array([groups.index(group) for group, _ in tests]),
        groups=len(groups),
    )


def calibration() -> list[Feed]:
    """The calibration posts in up to WINDOWS windows of LENGTH word pieces: what a post goes on with is free data."""
    tokenizer = _tokenizer()
    tokenizer.no_truncation()
    begin, end = (tokenizer.token_to_id(t) for t in ("[CLS]", "[SEP]"))
    inside = LENGTH - 2
    pieces = []
    for encoded in tokenizer.encode_batch(corpus().calibration, add_special_tokens=False):
        windows = [encoded.ids[i : i + inside] for i in range(0, inside * WINDOWS, inside)]
        pieces += [[begin, *w, end] for i, w in enumerate(windows) if i == 0 or len(w) >= _LEAST]
    return [feed for feed, _ in _batches(pieces)]


def judged() -> list[Feed]:
    """The test posts as feeds, short ones first."""
    return [feed for feed, _ in _judged()]


def judged_order() -> list[int]:
    """Which test post each sample of these feeds is."""
    return [post for _, which in _judged() for post in which]


def embed(session: Session, texts: Sequence[str]) -> Matrix:
    """Unit vectors [len(texts), D] in the order of `texts`."""
    found: dict[int, Matrix] = {}
    tokenizer = _tokenizer()
    encoded = tokenizer.encode_batch(list(texts))
    for feed, which in _batches([e.ids for e in encoded]):
        (vectors,) = session.run([OUTPUT], feed)
        found.update(zip(which, vectors, strict=True))
    ordered = np.stack([found[i] for i in range(len(texts))])
    return np.asarray(ordered / np.linalg.norm(ordered, axis=1, keepdims=True), np.float32)


def classify(session: Session) -> Embedded:
    """Every test post put to the nearest centroid."""
    texts = corpus()
    centroids = embed(session, texts.centroid).reshape(texts.groups, CENTROID, -1).mean(axis=1)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    vectors = embed(session, texts.test)
    return Embedded(vectors, (vectors @ centroids.T).argmax(axis=1))


def score(base: Embedded, other: Embedded) -> Score:
    """`other` against the truth and against `base`."""
    cosines = np.einsum("td,td->t", base.vectors, other.vectors)
    return Score(
        accuracy=float((other.predicted == corpus().labels).mean()),
        cosine=float(cosines.mean()),
        worst=float(cosines.min()),
        flips=float((other.predicted != base.predicted).mean()),
    )


def _judged() -> list[tuple[Feed, list[int]]]:
    return _batches([e.ids for e in _tokenizer().encode_batch(corpus().test)])


def _rows(half: str) -> list[tuple[str, str]]:
    lines = fetch(f"newsgroups-{half}").read_text(encoding="utf-8").split("\n")[3:]  # names, types, roles
    parts = (line.split("\t", 1) for line in lines if "\t" in line)
    return [(group, text) for group, text in parts]


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(fetch("bert-uncased-tokenizer")))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.no_padding()
    return tokenizer


def _batches(pieces: Sequence[Sequence[Any]]) -> list[tuple[Feed, list[int]]]:
    """Texts, short ones first, as feeds that are padded to their own longest text; and which texts are in each."""
    order = sorted(range(len(pieces)), key=lambda i: len(pieces[i]))
    found = []
    for first in range(0, len(order), BATCH):
        which = order[first : first + BATCH]
        ids = np.zeros((len(which), max(len(pieces[i]) for i in which)), np.int64)
        mask = np.zeros_like(ids)
        for row, i in enumerate(which):
            ids[row, : len(pieces[i])], mask[row, : len(pieces[i])] = pieces[i], 1
        found.append(({"input_ids": ids, "attention_mask": mask}, which))
    return found
