"""A sparse layer too wide for memory, a few columns at a time.

A kernel packs its weight for the CPU it meets and needs up to 8 bytes a non-zero meanwhile. Columns of a product do
not know of each other (activations are quantised by row), so the result is the same, bit by bit. Packing is most of
what a large model's check takes, and one core does it for one session: slices are packed side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    k, n = _shape(node, operator)
    return k * n > _WIDE and all(v is not None and v.is_initializer() for v in _constants(node, operator))


def run(
    model: ir.Model, node: ir.Node, given: Mapping[str, Any], open_stage: Callable[[Skeleton], Any]
) -> np.ndarray[Any, Any]:
    """What `node` computes from the values `given`; `open_stage` makes a session of a slice."""
    operator = ops.operator_of(node)
    assert operator is not None
    positions, values, _, *scale, bias = (_array(v) for v in _constants(node, operator))
    dense = formats.decode(formats.EncodedWeight(_shape(node, operator), operator.encoding, (positions,), values))
    rows = {f"x{i}": given[str(v.name)] for i, v in enumerate(node.inputs[: operator.constants_at]) if v is not None}
    residual = given[str(node.inputs[-1].name)] if operator.residual else None  # type: ignore[union-attr]
    size = min(_SLICE, _AT_ONCE // machine.threads())
    width = max(size // dense.shape[0], 1)
    whole = _message(model)

    def compute(at: int) -> Any:
        part = slice(at, at + width)
        weight = formats.encode(np.ascontiguousarray(dense[:, part]), operator.encoding)
        arrays = ops.inputs_of(weight, bias[part], scale[0][part] if scale else None)
        after = {} if residual is None else {"residual": np.ascontiguousarray(residual[..., part])}
        proto = _model(whole, operator, rows, arrays, after)
        return open_stage(Skeleton(proto)).run(None, rows | after)[0]

    return np.concatenate([*parallel.in_threads(compute, range(0, dense.shape[1], width))], axis=-1)


def _message(model: ir.Model) -> onnx.ModelProto:
    """All of `model` but its graph."""
    imports = [onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items()]
    functions = [ir.to_proto(f) for f in model.functions.values()]
    return onnx.helper.make_model(
        onnx.GraphProto(), opset_imports=imports, functions=functions, ir_version=model.ir_version
    )


def _model(
    whole: onnx.ModelProto,
    operator: ops.Operator,
    rows: Mapping[str, Any],
    arrays: Mapping[str, Any],
    after: Mapping[str, Any],
) -> onnx.ModelProto:
    """Inputs: activations, those of the weight, which are constants, and a residual."""
    fed = ((n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), [None] * a.ndim) for n, a in {**rows, **after}.items())
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator.name, [*rows, *arrays, *after], ["y"], domain=ops.DOMAIN)],
        "slice",
        [onnx.helper.make_tensor_value_info(*one) for one in fed],
        [onnx.ValueInfoProto(name="y")],
        [ir.to_proto(ir.tensor(a, name=n)) for n, a in arrays.items()],
    )
    made = onnx.ModelProto()
    made.CopyFrom(whole)
    made.graph.CopyFrom(graph)
    return made


def _constants(node: ir.Node, operator: ops.Operator) -> Sequence[ir.Value | None]:
    """Positions, values, shape, [scale,] bias."""
    first = operator.constants_at
    return node.inputs[first : first + (5 if operator.integer else 4)]


def _shape(node: ir.Node, operator: ops.Operator) -> tuple[int, int]:
    k, n = (int(d) for d in _array(node.inputs[operator.constants_at + 2]))
    return k, n


def _array(value: ir.Value | None) -> Any:
    assert value is not None
    assert value.const_value is not None  # a constant of a sparse operator
    return value.const_value.numpy()
