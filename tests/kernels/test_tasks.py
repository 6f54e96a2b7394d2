"""However rows and weights are dealt out to tasks and threads (tasks.h), a row's results are the same."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from ml_dtypes import bfloat16

from sparsify import ops, runtime
from sparsify.cost import operator_model
from sparsify.formats import EncodedWeight, encode
from sparsify.kernels import isa
from sparsify.kernels.native import Kernel, Product, kernels
from sparsify.ops import Activation, Operator, Values

# Of bf16 those that permute: the others are fp32 kernels, which sum 8 rows in another order than 16.
DEALT = [k for k in kernels() if (k.format == "int8" or k.name.startswith("bf16_permute")) and k.isa != "scalar"]
# Packed, these are less than 512 KB, less than 2 MB, and more: see in_tasks.
IN_L2, IN_L3, LARGE = (70, 100), (1024, 1024), (2048, 2048)


def _layer(shape: tuple[int, int], rows: int, kind: str) -> tuple[EncodedWeight, npt.NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    dense = rng.integers(-127, 128, shape) * (rng.random(shape) < 0.5)
    x = rng.standard_normal((rows, shape[0])).astype(np.float32)
    return encode(dense.astype(np.int8 if kind == "int8" else bfloat16)), x


def _product(kernel: Kernel, weight: EncodedWeight) -> Product:
    ones = np.ones(weight.shape[1], np.float32)
    return Product(kernel.name, weight, ones, ones if kernel.format == "int8" else None)


@pytest.mark.parametrize("rows", [96, 128, 131, 520])
@pytest.mark.parametrize("shape", [IN_L2, IN_L3])
@pytest.mark.parametrize("kernel", DEALT, ids=str)
def test_rows_are_what_eight_of_them_are(kernel: Kernel, shape: tuple[int, int], rows: int) -> None:
    _assert_rows_are_what_eight_of_them_are(kernel, shape, rows)


@pytest.mark.skipif(not DEALT, reason="this CPU runs no kernel that deals rows out")
def test_so_they_are_where_weights_are_large() -> None:
    _assert_rows_are_what_eight_of_them_are(DEALT[0], LARGE, 520)


def _assert_rows_are_what_eight_of_them_are(kernel: Kernel, shape: tuple[int, int], rows: int) -> None:
    weight, x = _layer(shape, rows, kernel.format)
    with _product(kernel, weight) as product:
        every = np.concatenate([product.run(x[m : m + 8]) for m in range(0, rows, 8)])
        np.testing.assert_array_equal(product.run(x), every)


@pytest.mark.skipif(isa() in (None, "scalar"), reason="sessions run no kernels here")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [8, 128, 520])
def test_runs_of_a_session_are_alike(threads: int, rows: int) -> None:
    """One thread alone goes over to larger tasks after some 16 runs."""
    weight, x = _layer(IN_L3, rows, "int8")
    ones = np.ones(weight.shape[1], np.float32)
    operator = Operator(Values.INT8, weight.encoding, Activation.NONE)
    model = operator_model(weight.shape[0], ops.inputs_of(weight, ones, ones), operator)
    session = runtime.session(model, threads=threads)
    (first,) = session.run(None, {"X": x})
    for _ in range(70):
        (again,) = session.run(None, {"X": x})
        np.testing.assert_array_equal(again, first)
