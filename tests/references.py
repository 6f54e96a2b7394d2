"""What the operators mean in NumPy, written from the formulae and not from the code, with derived error bounds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import erf

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

U = 2.0**-24  # unit roundoff of float32


def product(x: F32, weight: F32, bias: F32) -> F64:
    """X W + bias in float64."""
    return x.astype(np.float64) @ weight.astype(np.float64) + bias


def product_bound(x: F32, weight: F32, *added: F32, factors: int = 0) -> F64:
    """Bound on any float32 evaluation of X W + added..., in any order of summation.

    A sum of K products has K roundings of products and K - 1 of sums, one more for each term that is added and for
    each of the `factors`, such as alpha: n in all. |error| <= gamma_n (|X| |W| + |added|...) with
    gamma_n = n u / (1 - n u) (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1);
    1e-37 stands for what underflow may add.
    """
    n = weight.shape[0] + len(added) + factors
    gamma = n * U / (1 - n * U)
    magnitude = np.abs(x).astype(np.float64) @ np.abs(weight).astype(np.float64)
    for term in added:
        magnitude = magnitude + np.abs(term)
    return np.asarray(gamma * magnitude + 1e-37)


def integer_product(x: F32, integers: npt.NDArray[np.int8], scale: F32, bias: F32) -> F32:
    """The int8 operator: each float32 operation rounded once in the order of the definition; sums in int64."""
    zero, levels = np.float32(0), np.float32(255)
    low = np.minimum(x.min(axis=1, keepdims=True, initial=0), zero)
    high = np.maximum(x.max(axis=1, keepdims=True, initial=0), zero)
    span = np.maximum(high - low, np.float32(1e-30))
    inverse = levels / span
    zero_point = np.rint(-low * inverse)
    q = np.clip(np.rint(x * inverse) + zero_point, zero, levels).astype(np.int64)
    w = integers.astype(np.int64)
    total = q @ w - zero_point.astype(np.int64) * w.sum(axis=0)
    return np.asarray(total.astype(np.float32) * (span / levels) * scale + bias, np.float32)


def gelu(x: F64) -> F64:
    return np.asarray(x / 2 * (1 + erf(x / np.sqrt(2))))


def gelu_bound(x: F64) -> F64:
    """Bound on a float32 Gelu of an exact x by an erf within 3.6e-7 (see epilogue-inl.h), or a better one.

    x / sqrt 2 is rounded once: erf's argument is off by |z| u, erf by at most 2/sqrt(pi) max(z exp(-z^2)) u < u.
    1 + erf rounds once (it is at most 2: 2 u), then two products round: |x|/2 (3.6e-7 + u + 2u) + 2 u |x|.
    """
    return np.asarray(np.abs(x) * (1.8e-7 + 3.5 * U) + 1e-37)
