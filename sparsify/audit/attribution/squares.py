"""Squared norms of a value and of its error, a block at a time: float64 copies of large values would not fit."""

from __future__ import annotations

import math

from sparsify.audit import metrics
from sparsify.data import Array

_BLOCK = 2**20  # elements that are float64 at a time: 8 MB


def squares(base: Array, other: Array) -> tuple[float, float]:
    """|b|^2 and |c - b|^2 of two float arrays.

    What is NaN or infinite in both, and the same, is left out; where that or the shape differs the error is infinite.
    """
    same_shape = base.shape == other.shape  # a shape may depend on values
    power, error = 0.0, 0.0 if same_shape else math.inf
    flat, against = base.reshape(-1), (other if same_shape else base).reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        b, c, bad = metrics.comparable(flat[start : start + _BLOCK], against[start : start + _BLOCK])
        d = c - b
        power += float((b * b).sum())  # not b @ b: a BLAS would wake threads that onnxruntime is using
        error += math.inf if bad.any() else float((d * d).sum())
    return power, error
