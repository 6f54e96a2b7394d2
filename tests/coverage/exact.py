"""Models on which every rewrite is exact, so that a test of coverage needs no tolerance.

Weights are integers, two a column, one of them 127; every row of X holds integers from 0 to 255, both ends among them.
Then int8's scales are 1, bfloat16 holds every operand, and all sums are integers below 2^24, which fp32 holds: whatever
the order of summation, the rewritten model must give the same numbers as the base.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import onnx_ir as ir
from onnx.numpy_helper import from_array

from sparsify import passes
from sparsify.rewrite import Report
from tests.onemodel import session

LOWERINGS = ("sparse-fp32", "sparse-int8", "sparse-bf16", "stock-int8")
FORMS = {
    "sparse-fp32": "SparseMatMul",
    "sparse-int8": "SparseMatMulInt8",
    "sparse-bf16": "SparseMatMulBf16",
    "stock-int8": "MatMulInteger",
}
K, N, ROWS = 12, 6, 5
Array = npt.NDArray[np.generic]


def weight(k: int = K, n: int = N, seed: int = 0) -> npt.NDArray[np.float32]:
    """W [k, n]; its columns and, since K and N differ, nothing else has the property that int8 needs."""
    rng = np.random.default_rng(seed)
    w = np.zeros((k, n), np.float32)
    for column in range(n):
        # At even rows: CPUs without VNNI add the products of rows 2i and 2i + 1 in 16 bits, which hold one of them.
        first, second = rng.choice(range(0, k, 2), 2, replace=False)
        w[first, column], w[second, column] = 127, rng.integers(-127, 127)
    return w


def rows(*shape: int, seed: int = 1) -> npt.NDArray[np.float32]:
    """X of a shape; its last dimension is the one that is multiplied."""
    x = np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32)
    x[..., 0], x[..., 1] = 0, 255
    return x


def model(
    text: str, arrays: dict[str, Array] | None = None, *, opset: int = 17, ir_version: int = 8
) -> onnx.ModelProto:
    """The model `text`, without its header, with initializers."""
    proto = onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["" : {opset}]> {text}')
    proto.graph.initializer.extend(from_array(array, name) for name, array in (arrays or {}).items())
    return proto


def lower(proto: onnx.ModelProto, name: str, before: Iterable[str] = ("cleanup",)) -> tuple[onnx.ModelProto, Report]:
    """`proto` after the pass `name`, which lowers all that it can, and what it said."""
    loaded = ir.from_proto(proto)
    for each in before:
        passes.resolve(each)()(loaded)
    chosen = passes.resolve(name)
    report = chosen() if name == "stock-int8" else chosen(min_sparsity=0.0)
    said = report(loaded)
    assert isinstance(said, Report)
    rewritten = ir.to_proto(loaded)
    onnx.checker.check_model(rewritten, full_check=True)
    return rewritten, said


def assert_same(base: onnx.ModelProto, rewritten: onnx.ModelProto, feed: dict[str, Array]) -> None:
    """Both give the same numbers, the second on our kernels and without them."""
    expected = session(base, native=False).run(None, feed)
    for native in (False, True):
        found = session(rewritten, native=native).run(None, feed)
        for a, b in zip(expected, found, strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            np.testing.assert_array_equal(a, b)


def op_types(proto: onnx.ModelProto) -> list[str]:
    """Operators of the graph and its subgraphs."""
    return [node.op_type for node in ir.from_proto(proto).graph.all_nodes()]
