"""ROWS kernels: dense weights of which only rows are read whose input is not 0."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16

from sparsify.formats import EncodedWeight, Encoding, encode
from sparsify.kernels.native import Kernel, Product, kernels
from tests.references import product, product_bound

ROWS = [k for k in kernels() if k.format.startswith("rows")]


def _name(kernel: Kernel) -> str:
    return kernel.name


TYPES = {"rows": np.float32, "rows_bf16": bfloat16, "rows_int8": np.int8}


def _type(kernel: Kernel) -> type:
    return TYPES[kernel.format]


def _scale(kernel: Kernel, n: int) -> np.ndarray | None:
    return np.geomspace(1e-3, 1, n, dtype=np.float32) if kernel.format == "rows_int8" else None


@pytest.mark.parametrize("kernel", ROWS, ids=_name)
def test_broken_rows_are_refused(kernel: Kernel) -> None:
    values, bias = np.ones((5, 4), _type(kernel)), np.zeros(4, np.float32)
    for wrong in (values[:4], values[:, :3], np.ones((6, 4), values.dtype), values[:0]):
        with pytest.raises(ValueError, match="of all rows number"):
            Product(kernel.name, EncodedWeight((5, 4), Encoding.ROWS, (), np.ascontiguousarray(wrong)), bias, bias)
    with pytest.raises(ValueError, match="read no positions"):
        Product(kernel.name, encode(values), bias, bias)
    with pytest.raises(ValueError, match="not a matrix"):
        Product(kernel.name, EncodedWeight((5, 0), Encoding.ROWS, (), values), bias, bias)


@pytest.mark.parametrize("kernel", ROWS, ids=_name)
@settings(deadline=None, max_examples=40)
@given(
    k=st.integers(1, 70),
    n=st.sampled_from([1, 7, 8, 9, 17, 511, 512, 513, 1030, 2050]),
    rows=st.integers(0, 19),
    zeros=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 99),
)
def test_rows_of_which_some_inputs_are_zero(kernel: Kernel, k: int, n: int, rows: int, zeros: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.where(rng.random((rows, k)) < zeros, 0, rng.standard_normal((rows, k))).astype(np.float32)
    spread = 50 if kernel.format == "rows_int8" else 1
    weight = np.clip(spread * rng.standard_normal((k, n)), -128, 127).astype(_type(kernel))
    scale = _scale(kernel, n)
    bias, residual = rng.standard_normal(n).astype(np.float32), rng.standard_normal((rows, n)).astype(np.float32)
    w = weight.astype(np.float64) * (1 if scale is None else scale)  # exact: integers of 8 bits
    exact, bound = product(x, w, bias), product_bound(x, w, bias, factors=1)
    with Product(kernel.name, encode(weight, Encoding.ROWS), bias, scale) as packed:
        assert np.all(np.abs(packed.run(x) - exact) <= bound)
        added = packed.run(x, residual)
    assert np.all(np.abs(added - (exact + residual)) <= bound + 2**-23 * (np.abs(exact) + np.abs(residual)))


@pytest.mark.parametrize("kernel", ROWS, ids=_name)
def test_weights_of_inputs_that_are_zero_are_not_read(kernel: Kernel) -> None:
    # The reference reads them all; every other kernel must not notice what stands there.
    weight = np.ones((9, 20), _type(kernel))
    x = np.zeros((3, 9), np.float32)
    x[:, [2, 5]] = [[1, 2], [0, 4], [-0.0, 0]]
    weight[[0, 1, 3, 4, 6, 7, 8]] = np.nan if kernel.isa != "scalar" and kernel.format != "rows_int8" else 7
    ones = np.ones(20, np.float32)
    with Product(kernel.name, encode(weight, Encoding.ROWS), 0 * ones, ones) as packed:
        assert packed.run(x).tolist() == [[3.0] * 20, [4.0] * 20, [0.0] * 20]
