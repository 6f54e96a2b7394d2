"""What the operators mean in NumPy, written from the formulae and not from the code, with derived error bounds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from ml_dtypes import bfloat16
from scipy.special import erf, expit

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

U = 2.0**-24  # unit roundoff of float32
TINY = 2.0**-126  # its smallest normal number


def product(x: F32, weight: F32 | F64, bias: F32) -> F64:
    """X W + bias in float64."""
    return x.astype(np.float64) @ weight.astype(np.float64) + bias


def product_bound(x: F32, weight: F32 | F64, *added: F32, factors: int = 0) -> F64:
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


def quantized_rows(x: F32) -> tuple[npt.NDArray[np.int64], F32, npt.NDArray[np.int64]]:
    """q [M, K], scale [M, 1] and zero point [M, 1] of finite rows, each operation rounded once in the order given."""
    zero, levels = np.float32(0), np.float32(255)
    low = np.minimum(x.min(axis=1, keepdims=True, initial=0), zero)
    high = np.maximum(x.max(axis=1, keepdims=True, initial=0), zero)
    span = np.maximum(high - low, np.float32(1e-30))
    inverse = levels / span
    zero_point = np.rint(-low * inverse)
    q = np.clip(np.rint(x * inverse) + zero_point, zero, levels).astype(np.int64)
    return q, np.asarray(span / levels, np.float32), zero_point.astype(np.int64)


def integer_product(x: F32, integers: npt.NDArray[np.int8], scale: F32, bias: F32) -> F32:
    """The int8 operator: each float32 operation rounded once in the order of the definition; sums in int64."""
    q, row_scale, zero_point = quantized_rows(x)
    w = integers.astype(np.int64)
    total = q @ w - zero_point * w.sum(axis=0)
    return np.asarray(total.astype(np.float32) * row_scale * scale + bias, np.float32)


def gelu(x: F64) -> F64:
    return np.asarray(x / 2 * (1 + erf(x / np.sqrt(2))))


def gelu_bound(x: F64) -> F64:
    """Bound on a float32 Gelu of an exact x by an erf within 3.6e-7 (see epilogue-inl.h), or a better one.

    x / sqrt 2 is rounded once: erf's argument is off by |z| u, erf by at most 2/sqrt(pi) max(z exp(-z^2)) u < u.
    1 + erf rounds once (it is at most 2: 2 u), then two products round: |x|/2 (3.6e-7 + u + 2u) + 2 u |x|.
    """
    return np.asarray(np.abs(x) * (1.8e-7 + 3.5 * U) + 1e-37)


def gelu_tanh(x: F64) -> F64:
    # x / 2 (1 + tanh(z)) = x / (1 + exp(-2 z)), which loses nothing where tanh is near -1
    return np.asarray(x * expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_tanh_bound(x: F64) -> F64:
    """Bound on x / (1 + e), e = exp(t) within 2.3 u, t = x (A + B x^2) rounded once in A or B, x^2, sum and product.

    e is off by (4 |t| + 2.3) u of itself, x / (1 + e) by s(1 - s) times that with s = 1 / (1 + e): s(1 - s) |t| is at
    most 0.224 and s(1 - s) 1/4; sum and quotient round once each: |x| (4 * 0.224 + 2.3 / 4 + 2) u < 3.5 u |x|. Where
    exp overflows the result is 0: less than 3.8e-37 is lost.
    """
    return np.asarray(3.5 * U * np.abs(x) + 3.8e-37)


def sigmoid_bound(x: F64) -> F64:
    """Bound on 1 / (1 + e), e = exp(-x) within 2.3 u: sum and quotient round once each. 4.2e-39: exp overflows."""
    return np.asarray(4.3 * U * expit(x) + 4.3e-39)


def silu(x: F64) -> F64:
    return np.asarray(x * expit(x))


def silu_bound(x: F64) -> F64:
    """As of Sigmoid, times |x|, which is below 89 where exp does not overflow."""
    return np.asarray(4.3 * U * np.abs(silu(x)) + 3.8e-37)


def tanh_bound(x: F64) -> F64:
    """Bound on E / (E + 2), E = 2^n q + (2^n - 1), see epilogue-inl.h.

    q is within 0.7 u, absolutely, and within 2 u of itself. E is off by 2^n 0.7 u and its last rounding: for n = 0
    2 u of itself, for n = 1 (E >= 0.414) 4.4 u, for n = -1 (E <= -0.29) 2.2 u, otherwise less. E / (E + 2) passes on
    2 / (E + 2) of it, 0.83 for n = 1, up to 1.2 for n = 0, 1.5 for n = -1 and 2 below, where E is within 1.3 u; sum and
    quotient round once each: 6 u.
    """
    return np.asarray(6 * U * np.abs(np.tanh(x)) + 1e-44)


# By name: the function, the bound for our kernels on an exact argument, and the largest slope, which an error of the
# argument may be multiplied by.
ACTIVATIONS = {
    "Relu": (lambda x: np.maximum(x, 0), np.zeros_like, 1.0),
    "Gelu": (gelu, gelu_bound, 1.13),
    "GeluTanh": (gelu_tanh, gelu_tanh_bound, 1.13),
    "Silu": (silu, silu_bound, 1.1),
    "Sigmoid": (expit, sigmoid_bound, 0.25),
    "Tanh": (np.tanh, tanh_bound, 1.0),
}


def body_bound(name: str, x: F64) -> F64:
    """Bound on an activation's function body in a runtime whose Sigmoid and Tanh are within 8 u, absolutely, or better.

    (onnxruntime's are rational functions, cut off where they come within 1e-8 of their limits; measured 2 u and 5 u.)
    Silu multiplies by |x| and rounds. GeluTanh: tanh's argument z has seven roundings, tanh passes on at most 0.448 of
    an error relative to z, the sum with 1 rounds at up to 2 u, two products at u each:
    |x| / 2 (8 u + 7 * 0.448 u + 2 u + 2 * 2 u) < 9 u |x|.
    """
    factors = {"GeluTanh": 9 * np.abs(x), "Silu": 9 * np.abs(x), "Sigmoid": 8.0, "Tanh": 8.0}
    if name in factors:
        return np.asarray(factors[name] * U + np.zeros_like(x))
    return np.asarray(ACTIVATIONS[name][1](x))
