"""Run by test_allocations.py with count_allocations.c preloaded: a line of operator, rows and three counts for a case.

Counts are allocations of the native library in each of three runs: the first may need shapes and a larger arena.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from ml_dtypes import bfloat16
from scipy.sparse import csc_array

from sparsify import ops, runtime
from sparsify.cost import operator_model
from sparsify.formats import EncodedWeight, Encoding, encode, encode_columns
from sparsify.kernels import library_path
from sparsify.ops import Activation, Operator, Values

COUNTER = ctypes.CDLL(None)
TYPES = {Values.FP32: np.float32, Values.INT8: np.int8, Values.BF16: bfloat16}


def cases() -> Iterator[tuple[str, ir.Model]]:
    """An operator for each kind of weight and way to store it, half of its weights zeros."""
    dense = np.random.default_rng(0).integers(-3, 4, (300, 200)) * (np.arange(200) % 2)
    for operator in ops.OPERATORS.values():
        if operator.activation is Activation.GELU:
            yield operator.name, _model(operator, dense)


def _model(operator: Operator, dense: npt.NDArray[np.int64]) -> ir.Model:
    weight: EncodedWeight
    if operator.encoding is Encoding.COLUMNS:
        weight = encode_columns(csc_array(dense.astype(np.float32)))
    else:
        weight = encode(dense.astype(TYPES[operator.values]), operator.encoding)
    ones = np.ones(dense.shape[1], np.float32)
    return operator_model(dense.shape[0], ops.inputs_of(weight, ones, ones if operator.scaled else None), operator)


def main() -> None:
    """Two threads; the second run of each kind may not allocate."""
    for name, model in cases():
        session = runtime.session(model, threads=2)
        if not COUNTER.count_allocations_of(str(library_path()).encode()):
            raise SystemExit("the library is not loaded")
        for rows in (1, 40):
            x = np.ones((rows, 300), np.float32)
            counts = []
            for _ in range(3):
                before = COUNTER.allocations()
                session.run(None, {"X": x})
                counts.append(COUNTER.allocations() - before)
            print(name, rows, *counts)


if __name__ == "__main__":
    main()
