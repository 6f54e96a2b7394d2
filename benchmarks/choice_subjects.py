"""What `benchmarks.choice` and `benchmarks.frontier` run on: models, data to search with and other data to judge by."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer

from benchmarks import brown, lines, photos
from benchmarks.newsgroups import corpus
from models.bert import minilm_l6
from models.fetch import fetch
from sparsify.data import Feed

BATCH, LENGTH = 8, 64  # texts; word pieces, no padding
_BYTES = 1024  # that Magika reads of either end of a file
_PADDING = 256  # what stands for a byte that is not there
_KINDS = (".py", ".pyi", ".png", ".txt", ".so", ".jpg", ".gif", ".csv")


@dataclass(frozen=True)
class Subject:
    """A model and its data.

    Attributes:
        title: for people.
        model: gives the file.
        search, judge: give feeds; no text, photograph or file is in both.
        budgets: each, and how many times faster than fp32 it is to be.
        rows: that linear layers see; those in the first feed if None.
        metrics: MODULE:FUNCTION, where a budget is about one.
        only: what onnxruntime's dynamic int8 takes; all that it knows if None. Convolutions in int8 would slow it down.
    """

    title: str
    model: Callable[[], Path]
    search: Callable[[], list[Feed]]
    judge: Callable[[], list[Feed]]
    budgets: Mapping[str, float]
    rows: int | None = None
    metrics: tuple[str, ...] = ()
    only: tuple[str, ...] | None = ("MatMul", "Gemm")

    def int8(self, to: Path, *, per_channel: bool = False, of: Path | None = None) -> Path:
        """Write onnxruntime's dynamic int8 of the model, or of another file that was made of it."""
        only = None if self.only is None else [*self.only]
        kind = QuantType.QInt8
        quantize_dynamic(of or self.model(), to, per_channel=per_channel, weight_type=kind, op_types_to_quantize=only)
        return to


def texts(posts: Sequence[str], count: int) -> list[Feed]:
    """`count` feeds of BATCH posts, each as LENGTH word pieces; shorter posts are left out.

    Raises:
        ValueError: there are not as many long posts.
    """
    tokenizer = Tokenizer.from_file(str(fetch("bert-uncased-tokenizer")))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.no_padding()
    ids = [e.ids for e in tokenizer.encode_batch(list(posts)) if len(e.ids) == LENGTH]
    if len(ids) < count * BATCH:
        raise ValueError(f"{len(ids)} posts of {LENGTH} word pieces, fewer than {count * BATCH}")
    batches = (np.array(ids[i * BATCH : (i + 1) * BATCH], np.int64) for i in range(count))
    return [{"input_ids": batch, "attention_mask": np.ones_like(batch)} for batch in batches]


def _pictures(names: Sequence[str], crops: int = photos.CROPS) -> list[Feed]:
    return [{"input_image": square[None]} for square in photos.squares(names, crops)]


def _lines(samples: Sequence[str], count: int) -> list[Feed]:
    return [{"x": picture} for picture in lines.pictures(lines.texts(samples, count))]


def _files(*, judged: bool, count: int = 320) -> list[Feed]:
    """Files in the package of the photographs, as Magika reads them: every other one is judged."""
    with zipfile.ZipFile(fetch("photos")) as archive:
        by_kind = [[n for n in sorted(archive.namelist()) if n.endswith(kind)][judged::2] for kind in _KINDS]
        names = [n for of_kind in by_kind for n in of_kind[: count // len(_KINDS) + 1]]
        return [{"bytes": _ends(archive.read(name))} for name in names[:count]]


def _ends(content: bytes) -> np.ndarray:
    begin, end = content.lstrip()[:_BYTES], content.rstrip()[-_BYTES:]
    found = np.full((1, 2 * _BYTES), _PADDING, np.int32)
    found[0, : len(begin)] = [*begin]
    found[0, 2 * _BYTES - len(end) :] = [*end]
    return found


def map_iou(base: Mapping[str, Any], candidate: Mapping[str, Any], _: Mapping[str, Any]) -> float:
    """Intersection over union of what two saliency maps call important."""
    old, new = (side["output_importance"][:, 0] for side in (base, candidate))
    return float(photos.overlap(old, new).mean())


def same_line(base: Mapping[str, Any], candidate: Mapping[str, Any], _: Mapping[str, Any]) -> float:
    """1 where a line is read as before, to the letter."""
    old, new = (lines.reading(side["fetch_name_0"][0]) for side in (base, candidate))
    return float(old == new)


SUBJECTS = {
    "minilm": Subject(
        "all-MiniLM-L6-v2, 8 x 64",
        minilm_l6,
        lambda: texts(corpus().centroid, 24),
        lambda: texts(corpus().test, 16),
        {"cosine@sentence_embedding>=0.99": 2.8, "cosine@sentence_embedding>=0.95": 3.4},  # for AVX-512
        rows=BATCH * LENGTH,
        only=None,
    ),
    "vit": Subject(
        "ViT-S/14 saliency, one picture",
        partial(fetch, "vit-saliency"),
        lambda: _pictures(photos.CALIBRATION, 24),
        lambda: _pictures(photos.JUDGED, 18),
        {"map_iou>=0.98": 1.7},
        metrics=("benchmarks.choice_subjects:map_iou",),
    ),
    "ocr": Subject(
        "PP-OCRv6 recogniser, one line",
        partial(fetch, "ppocr-recogniser"),
        lambda: _lines(brown.CALIBRATION, lines.LEARNT),
        lambda: _lines(brown.JUDGED, lines.JUDGED),
        {"same_line>=1": 1.15},
        metrics=("benchmarks.choice_subjects:same_line",),
    ),
    "magika": Subject(
        "Magika, one file",
        partial(fetch, "magika"),
        lambda: _files(judged=False),
        lambda: _files(judged=True),
        {"cosine@target_label>=0.99": 1.0},
    ),
}
