"""Second moments of what a model computes: H = sum of x x^T over all rows x of a value, one feed at a time.

Rows that a feed's own mask calls padding do not count: they say nothing about real inputs, and there may be many.
Nor do rows that hold a NaN or an infinity, which would make all of H useless.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify.data import Array, Feed
from sparsify.parallel import in_threads, one_blas_thread
from sparsify.runtime.batches import each_batch
from sparsify.solvers.symmetric import Symmetric

MASK_INPUT = "attention_mask"  # what exporters of transformers call it; 0 is padding


def second_moments(
    model: ir.Model,
    feeds: Sequence[Mapping[str, Array]],
    values: Iterable[str],
    *,
    threads: int | None = None,
) -> dict[str, npt.NDArray[np.float64]]:
    """H float64 [K, K] of each named float value [..., K]; values that the main graph does not have are left out.

    Memory: one feed's values, and 16 K^2 bytes a value.
    """
    moments: dict[str, npt.NDArray[np.float64]] = {}
    for batch in each_batch(model, feeds, values, _moments, threads=threads):
        for name, more in batch.items():
            moments[name] = np.add(moments[name], more.matrix, out=moments[name]) if name in moments else more.matrix
    return moments


def _moments(batch: Iterable[tuple[Mapping[str, Array], Feed]]) -> dict[str, Symmetric]:
    items = ((name, counted([value], feed)[0]) for feed, by_name in batch for name, value in by_name.items())
    moments: dict[str, npt.NDArray[np.float64]] = {}
    with one_blas_thread():  # as on other machines: BLAS's own threads add up in another order
        for name, moment in in_threads(_moment, items):
            # float32 within a feed, float64 across feeds: a feed has few enough rows for its own sum to be accurate.
            moments[name] = moments[name] + moment if name in moments else moment.astype(np.float64)
    return {name: Symmetric(moment) for name, moment in moments.items()}


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
