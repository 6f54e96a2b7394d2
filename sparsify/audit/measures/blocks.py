"""Two outputs become a row of sums for each sample, a block at a time: scratch memory does not grow with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparsify.audit.measures.table import Floats, Sum, comparable, empty, is_float
from sparsify.data import Array

_BLOCK = 1 << 20  # elements that are looked at together: 8 MiB an array of float64


@dataclass(frozen=True)
class Block:
    """Some rows of some samples, all with their last axis; arrays are [samples, rows, width].

    Attributes:
        base, candidate: as the models gave them, in float64.
        bad: elements of which only one is finite, or that are not finite in different ways.
        samples, rows: which these are of all.
    """

    base: Floats
    candidate: Floats
    bad: npt.NDArray[np.bool_]
    samples: slice
    rows: slice


Rows = Callable[[Block, Floats], None]  # adds what the rows of a block say to the sums of its samples


def sums(base: Array, candidate: Array, samples: int, *extra: Rows) -> Floats:
    """[samples, len(Sum)] of two arrays of equal shape whose elements are `samples` equal parts, in order.

    `extra` are the metrics of the output's kind.
    """
    found = empty(samples)
    found[:, Sum.COUNT] = 1
    found[:, Sum.SIZE] = base.size // max(samples, 1)
    if not base.size:
        return found
    if not is_float(base):
        found[:, Sum.MATCHES] = (base == candidate).reshape(samples, -1).sum(axis=1)
        return found
    with np.errstate(over="ignore", invalid="ignore"):
        for block in _blocks(base, candidate, samples):
            part = found[block.samples]
            _add(block, part)
            for rows in extra:
                rows(block, part)
        found[:, Sum.COSINE] = _cosine(found)
    found[found[:, Sum.LEFT_OUT] == found[:, Sum.SIZE], Sum.COUNT] = 0
    broken = found[:, Sum.MISMATCHES] > 0
    found[broken, Sum.COUNT] = 1
    found[broken, Sum.COSINE] = np.nan
    for column in (Sum.ERROR, Sum.ABS, Sum.MAX_ABS, Sum.KL, Sum.JS, Sum.LOSS):
        found[broken, column] = np.inf
    found[broken, Sum.IOU] = 0
    return found


def _blocks(base: Array, candidate: Array, samples: int) -> Iterator[Block]:
    """Whole samples, or whole rows where a sample is larger than a block."""
    width = base.shape[-1] if base.ndim > 1 else base.size // samples
    b, c = base.reshape(samples, -1, width), candidate.reshape(samples, -1, width)
    rows = b.shape[1]
    many = max(1, _BLOCK // (rows * width))
    some = max(1, _BLOCK // width) if many == 1 else rows
    for first in range(0, samples, many):
        for row in range(0, rows, some):
            which, lines = slice(first, first + many), slice(row, row + some)
            old, new = b[which, lines].astype(np.float64), c[which, lines].astype(np.float64)
            odd = ~(np.isfinite(old) & np.isfinite(new))
            yield Block(old, new, odd & ~((old == new) | (np.isnan(old) & np.isnan(new))), which, lines)


def _add(block: Block, found: Floats) -> None:
    shape = (len(block.base), -1)
    b, c, bad = comparable(block.base, block.candidate)
    b, c, bad = b.reshape(shape), c.reshape(shape), bad.reshape(shape)
    left_out = ~np.isfinite(block.base).reshape(shape) & ~bad
    d = c - b
    far = np.abs(d)
    found[:, Sum.LEFT_OUT] += left_out.sum(axis=1)
    found[:, Sum.MATCHES] += ((d == 0) & ~bad).sum(axis=1)
    found[:, Sum.MISMATCHES] += bad.sum(axis=1)
    for column, x, y in ((Sum.BASE, b, b), (Sum.CANDIDATE, c, c), (Sum.DOT, b, c), (Sum.ERROR, d, d)):
        found[:, column] += np.einsum("ij,ij->i", x, y)
    found[:, Sum.ABS] += far.sum(axis=1)
    found[:, Sum.MAX_ABS] = np.maximum(found[:, Sum.MAX_ABS], far.max(axis=1))
    seen = ~left_out & ~bad
    found[:, Sum.LEAST] = np.minimum(found[:, Sum.LEAST], b.min(axis=1, where=seen, initial=np.inf))
    found[:, Sum.MOST] = np.maximum(found[:, Sum.MOST], b.max(axis=1, where=seen, initial=-np.inf))


def _cosine(found: Floats) -> Floats:
    norms = np.sqrt(found[:, Sum.BASE]) * np.sqrt(found[:, Sum.CANDIDATE])
    cosine = np.divide(found[:, Sum.DOT], norms, out=np.zeros_like(norms), where=norms != 0)
    cosine = np.where(found[:, Sum.ERROR] == 0, 1.0, np.clip(cosine, -1, 1))
    return np.where(found[:, Sum.LEFT_OUT] == found[:, Sum.SIZE], 0.0, cosine)
