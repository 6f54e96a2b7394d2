"""What the operators mean in NumPy, written from the formulae and not from the code, with derived error bounds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from ml_dtypes import bfloat16
from scipy.special import erf

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

U = 2.0**-24  # unit roundoff of float32
TINY = 2.0**-126  # its smallest normal number


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


def bf16(a: F32) -> F32:
    """`a` rounded to the nearest bfloat16, ties to even."""
    return a.astype(bfloat16).astype(np.float32)


def bf16_product_bound(x: F32, weight: F32, bias: F32) -> F64:
    """Bound on any float32 sum of the products of bfloat16 `x` and `weight`, and the bias, in any order.

    Products of two numbers of 8 significant bits are exact in float32. A sum of the n of a column and the bias has n
    roundings: |error| <= gamma_n (|X| |W| + |bias|), see `product_bound`; a unit that rounds after each pair, or that
    sums a pair first, does no more. The bf16 unit of a CPU takes denormal operands for 0, which loses their products,
    and denormal results for 0: up to 2^-126 for each of n products and n sums.
    """
    n = np.count_nonzero(weight, axis=0)
    gamma = n * U / (1 - n * U)
    large, heavy = np.abs(x).astype(np.float64), np.abs(weight).astype(np.float64)
    flushed_x, flushed_w = np.where(large < TINY, large, 0), np.where(heavy < TINY, heavy, 0)
    lost = flushed_x @ heavy + large @ flushed_w + (2 * n + 1) * TINY
    return np.asarray(gamma * (large @ heavy + np.abs(bias)) + lost)


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
