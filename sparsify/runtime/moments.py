"""Second moments of what a model computes: H = sum of x x^T over all rows x of a value, one feed at a time.

Rows that a feed's own mask calls padding do not count: they say nothing about real inputs, and there may be many.
Nor do rows that hold a NaN or an infinity, which would make all of H useless.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice

import numpy as np
import numpy.typing as npt

from sparsify.data import Array
from sparsify.parallel import in_order, in_threads
from sparsify.runtime.probe import capture
from sparsify.runtime.source import Source

# Inputs K from which on sums over a batch are worth sending away: K/4 operations a byte for a batch of K rows. At
# 1 GB/s (10 Gbit/s) and 32 GFLOP/s a core that keeps K/128 cores busy.
WIDE = 1024
MASK_INPUT = "attention_mask"  # what exporters of transformers call it; 0 is padding


def second_moments(
    model: Source,
    feeds: Iterable[Mapping[str, Array]],
    values: Iterable[str],
    *,
    threads: int | None = None,
) -> dict[str, npt.NDArray[np.float64]]:
    """H float64 [K, K] of each named float value [..., K]; values that the main graph does not have are left out.

    Memory: one feed's values, and 8 K^2 bytes a value.
    """
    feeds = list(feeds)
    moments: dict[str, npt.NDArray[np.float64]] = {}
    found = capture(model, feeds, values, threads=threads)
    first = [*islice(found, 1)]
    wide = any(value.shape[-1] >= WIDE for by_name in first for value in by_name.values())
    batches = (
        (name, counted([value], feed)[0])
        for feed, by_name in zip(feeds, chain(first, found), strict=True)
        for name, value in by_name.items()
    )
    for name, moment in (in_order if wide else in_threads)(_moment, batches):
        # float32 within a feed, float64 across feeds: a feed has few enough rows for its own sum to be accurate.
        moments[name] = moments[name] + moment if name in moments else moment.astype(np.float64)
    return moments


def _moment(batch: tuple[str, npt.NDArray[np.float32]]) -> tuple[str, npt.NDArray[np.float32]]:
    name, rows = batch
    return name, rows.T @ rows


def counted(values: Sequence[Array], feed: Mapping[str, Array]) -> list[npt.NDArray[np.float32]]:
    """The rows [T, K] of each value [..., K] that count: the same ones of all, which agree but for K."""
    mask = feed.get(MASK_INPUT)
    shape = values[0].shape[:-1]
    rows = [np.asarray(value, np.float32).reshape(-1, value.shape[-1]) for value in values]
    real = np.ones(len(rows[0]), bool) if mask is None or shape != mask.shape else mask.reshape(-1) != 0
    for array in rows:
        real &= np.isfinite(array).all(axis=1)
    return rows if real.all() else [array[real] for array in rows]
