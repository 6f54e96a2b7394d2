"""A sparse layer too wide for memory, a few columns at a time.

A kernel packs its weight for the CPU it meets and needs up to 8 bytes a non-zero meanwhile. Columns of a product do
not know of each other (activations are quantised by row), so the result is the same, bit by bit. Packing is most of
what a large model's check takes, and one core does it for one session: slices are packed side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir

from sparsify import formats, machine, ops, parallel
from sparsify.runtime.source import Skeleton

_WIDE = 2**26  # weights: 64 MiB in int8, up to 0.5 GB while it is packed
_SLICE = 2**23
_AT_ONCE = 2**25  # weights of all slices in work


def is_wide(node: ir.Node) -> bool:
    """Whether `node` is a sparse layer that is better run in slices. Its constants must be initializers."""
    operator = ops.operator_of(node)
    if operator is None or operator.encoding in (formats.Encoding.COLUMNS, formats.Encoding.ROWS):
        return False
    k, n = _shape(node)
    return k * n > _WIDE and all(v is not None and v.is_initializer() for v in node.inputs[1 : _end(operator)])


def run(
    model: ir.Model, node: ir.Node, given: Mapping[str, Any], open_stage: Callable[[Skeleton], Any]
) -> np.ndarray[Any, Any]:
    """What `node` computes from the values `given`; `open_stage` makes a session of a slice."""
    operator = ops.operator_of(node)
    assert operator is not None
    positions, values, _, *scale, bias = (_array(v) for v in node.inputs[1 : _end(operator)])
    dense = formats.decode(formats.EncodedWeight(_shape(node), operator.encoding, (positions,), values))
    x = given[str(node.inputs[0].name)]  # type: ignore[union-attr]
    residual = given[str(node.inputs[-1].name)] if operator.residual else None  # type: ignore[union-attr]
    size = min(_SLICE, _AT_ONCE // machine.threads())
    width = max(size // dense.shape[0], 1)
    whole = _message(model)

    def compute(at: int) -> Any:
        part = slice(at, at + width)
        weight = formats.encode(np.ascontiguousarray(dense[:, part]), operator.encoding)
        arrays = ops.inputs_of(weight, bias[part], scale[0][part] if scale else None)
        feed = {"x": x} if residual is None else {"x": x, "residual": np.ascontiguousarray(residual[..., part])}
        return open_stage(Skeleton(_model(whole, operator, arrays, feed))).run(None, feed)[0]

    return np.concatenate([*parallel.in_threads(compute, range(0, dense.shape[1], width))], axis=-1)


def _message(model: ir.Model) -> onnx.ModelProto:
    """All of `model` but its graph."""
    imports = [onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items()]
    functions = [ir.to_proto(f) for f in model.functions.values()]
    return onnx.helper.make_model(
        onnx.GraphProto(), opset_imports=imports, functions=functions, ir_version=model.ir_version
    )


def _model(
    whole: onnx.ModelProto, operator: ops.Operator, arrays: Mapping[str, Any], feed: Mapping[str, Any]
) -> onnx.ModelProto:
    names = ["x", *arrays, *(n for n in feed if n != "x")]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator.name, names, ["y"], domain=ops.DOMAIN)],
        "slice",
        [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [None] * a.ndim) for n, a in feed.items()],
        [onnx.ValueInfoProto(name="y")],
        [ir.to_proto(ir.tensor(a, name=n)) for n, a in arrays.items()],
    )
    made = onnx.ModelProto()
    made.CopyFrom(whole)
    made.graph.CopyFrom(graph)
    return made


def _end(operator: ops.Operator) -> int:
    """One past the last constant input: X, positions, values, shape, [scale,] bias."""
    return 6 if operator.integer else 5


def _shape(node: ir.Node) -> tuple[int, int]:
    k, n = (int(d) for d in _array(node.inputs[3]))
    return k, n


def _array(value: ir.Value | None) -> Any:
    assert value is not None
    assert value.const_value is not None  # a constant of a sparse operator
    return value.const_value.numpy()
