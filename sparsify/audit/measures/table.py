"""The table that samples leave behind, a row a sample, and the arithmetic that all metrics share."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from sparsify.data import Array

Floats = npt.NDArray[np.float64]


class Sum(IntEnum):
    """What a sample leaves behind; all but MAX_ABS, LEAST and MOST are summed over samples."""

    COUNT = 0  # 1; 0 where no element can be compared
    COSINE = 1
    DOT = 2  # <b, c>
    BASE = 3  # |b|^2
    CANDIDATE = 4  # |c|^2
    ERROR = 5  # |d|^2
    ABS = 6  # sum of |d|
    MAX_ABS = 7
    LEAST = 8  # element of the base
    MOST = 9
    ROWS = 10  # that are classified
    HITS = 11  # rows with equal argmax
    TOP5 = 12  # of each row's five largest those that both have
    FLIPPED = 13  # 1 where any row has another argmax
    DISTRIBUTIONS = 14  # rows that are one in both
    KL = 15
    JS = 16
    TOKENS = 17  # that are foretold
    LOSS = 18  # ln p_t - ln q_t, summed over them
    BOXES = 19
    IOU = 20
    QUERIES = 21  # neighbours that were looked up
    NEIGHBOURS = 22  # those that both have
    MATCHES = 23  # equal elements
    SIZE = 24
    MISMATCHES = 25  # elements that are NaN or infinite in one, or differently so
    LEFT_OUT = 26  # elements that are NaN or infinite in both, and the same


def empty(samples: int) -> Floats:
    """[samples, len(Sum)] of samples in which nothing was seen yet."""
    found = np.zeros((samples, len(Sum)))
    found[:, Sum.LEAST], found[:, Sum.MOST] = np.inf, -np.inf
    return found


def is_float(array: Array) -> bool:
    """Whether the float metrics apply; bfloat16 is no float to NumPy."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def comparable(base: Array, candidate: Array) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Both as float64 with what is not finite set to 0, and where that hides a difference."""
    b, c = base.astype(np.float64), candidate.astype(np.float64)
    odd = ~(np.isfinite(b) & np.isfinite(c))
    bad = odd & ~((b == c) | (np.isnan(b) & np.isnan(c)))
    b[odd] = c[odd] = 0
    return b, c, bad


def relative_l2(base: npt.ArrayLike, error: npt.ArrayLike) -> Floats:
    """sqrt(error / base) of squared norms; 0 where there is no error, inf where there is one and no base."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.equal(error, 0), 0.0, np.sqrt(np.divide(error, base)))
