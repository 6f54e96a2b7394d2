"""COLUMNS kernels: very sparse weights in column-major order."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse import csc_array

from sparsify.formats import EncodedWeight, Encoding, encode, encode_columns
from sparsify.kernels.native import Kernel, Product, kernels
from tests.references import U, product, product_bound


def _name(kernel: Kernel) -> str:
    return kernel.name


COLUMNS = [k for k in kernels() if k.format == "columns"]


@pytest.mark.parametrize("kernel", COLUMNS, ids=_name)
def test_broken_columns_are_refused(kernel: Kernel) -> None:
    good = encode_columns(csc_array(np.eye(5, dtype=np.float32)))
    (low, high), values = good.positions, good.values
    broken = {
        "positions and values": [(low * 2, high), (low * 0, high)],
        "gaps number": [(low[:-1], high), (low, np.zeros(2, np.uint8)), (low, np.zeros(0, np.uint8))],
        "high part of all gaps": [(low, np.ones(1, np.uint8))],
        "expected uint8 or uint16": [(low.astype(np.int32), high)],
    }
    bias = np.zeros(5, np.float32)
    for says, forms in broken.items():
        for positions in forms:
            with pytest.raises(ValueError, match=says):
                Product(kernel.name, EncodedWeight((5, 5), Encoding.COLUMNS, positions, values), bias)
    for shape in ((5, 0), (0, 5), (2**31, 5)):
        with pytest.raises(ValueError, match="not a matrix"):
            Product(kernel.name, EncodedWeight(shape, Encoding.COLUMNS, good.positions, values), bias)
    with pytest.raises(ValueError, match="not gaps of columns"):
        Product(kernel.name, encode(np.eye(5, dtype=np.float32)), bias)
    with pytest.raises(ValueError, match="for kernels of columns"):
        Product("fp32_scalar", good, bias)


@pytest.mark.parametrize("kernel", COLUMNS, ids=_name)
@pytest.mark.parametrize(("k", "rows"), [(300, 0), (300, 2), (300, 40), (300, 256), (70_000, 1), (70_000, 7)])
def test_columns_of_every_length(kernel: Kernel, k: int, rows: int) -> None:
    # Full columns are several tasks, and behind them stand more empty ones than a task may have.
    rng = np.random.default_rng(rows)
    dense = np.zeros((k, 40), np.float32)
    dense[:, 5] = rng.standard_normal(k)
    dense[:, 39] = rng.standard_normal(k)
    dense[::9, 6:30] = rng.standard_normal((len(dense[::9]), 24))
    empty = 40_000
    parts = (csc_array(dense[:, :30]), csc_array((k, empty), dtype=np.float32), csc_array(dense[:, 39:]))
    weight = encode_columns(csc_array(scipy.sparse.hstack(parts)))
    bias = rng.standard_normal(weight.shape[1]).astype(np.float32)
    x = rng.standard_normal((rows, k)).astype(np.float32)
    with Product(kernel.name, weight, bias) as packed:
        y = packed.run(x)
        if rows:
            x[-1, k - 1] = np.inf  # meets no weight but those of full columns
            spoiled = packed.run(x)
            assert np.isnan(spoiled[-1]).all()
            assert np.array_equal(spoiled[:-1], y[:-1])
            x[-1, k - 1] = 0
    used = dense[:, np.r_[np.arange(30), 30, 39]]
    some = np.r_[np.arange(31), empty + 30]
    if rows:
        with Product(kernel.name, weight, bias) as packed:
            y = packed.run(x)
        assert np.array_equal(y[:, 30 : 30 + empty], np.broadcast_to(bias[30 : 30 + empty], (rows, empty)))
    assert np.all(np.abs(y[:, some] - product(x, used, bias[some])) <= product_bound(x, used, bias[some]))


@pytest.mark.parametrize("kernel", COLUMNS, ids=_name)
def test_a_row_so_long_that_it_moves_into_large_pages(kernel: Kernel) -> None:
    k = 2**18 + 37  # kLong of columns-inl.h, and a tail
    rng = np.random.default_rng(0)
    weight = csc_array(scipy.sparse.random_array((k, 300), density=1e-4, random_state=rng, dtype=np.float32))
    bias, x = rng.standard_normal(300).astype(np.float32), rng.standard_normal((1, k)).astype(np.float32)
    most = int(np.diff(weight.indptr).max()) + 1
    exact = x.astype(np.float64) @ weight + bias
    bound = most * U / (1 - most * U) * (np.abs(x).astype(np.float64) @ np.abs(weight) + np.abs(bias))
    with Product(kernel.name, encode_columns(weight), bias) as packed:
        assert np.all(np.abs(packed.run(x) - exact) <= bound)
        x[0, -1] = np.nan
        assert np.isnan(packed.run(x)).all()
