"""Dimensions of values, as far as they can be told without running a model, and which of them are equal.

ONNX's shape inference names a dimension that it cannot tell; where operands of different names are broadcast it
makes up a new name. Broadcasting is associative, commutative and idempotent: of dimensions that fit together the
result is the one that is not 1, or 1. So it is known by the set of names that went into it, and two dimensions with
the same set are equal. In a transformer whose mask and input are broadcast at every layer, all layers have one shape.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from sparsify import limits, ops
from sparsify.formats import Encoding
from sparsify.graph import constant

Dimension = int | frozenset[str]  # a number, or the names of all that it was broadcast from
Shape = tuple[Dimension, ...]

_SMALL = 1024  # elements of a constant that may tell a shape
# Which input of an operator is the shape, counted from the first constant one; 2 of the others.
_SHAPE_AT = {Encoding.COLUMNS: 3, Encoding.ROWS: 1}
_BROADCAST = {
    *("Add", "Sub", "Mul", "Div", "Pow", "Mod", "PRelu", "Where", "Min", "Max", "Mean", "Sum"),
    *("And", "Or", "Xor", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"),
}


def shapes(model: ir.Model) -> dict[str, Shape]:
    """Shapes of the values of the main graph, by name; values of unknown rank are left out.

    Operators of ours are MatMuls here. The model is not changed, and no large constant is read. What a model says
    about its own values (names of dimensions above all) is believed, as runtimes do.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(_skeleton(model), data_prop=True).graph
    except onnx.shape_inference.InferenceError:
        return {}
    stated = {info.name: info.type.tensor_type for info in (*inferred.input, *inferred.value_info, *inferred.output)}
    stated |= {
        t.name: onnx.helper.make_tensor_type_proto(t.data_type, t.dims).tensor_type for t in inferred.initializer
    }
    names: dict[str, frozenset[str]] = {}
    known: dict[str, Shape] = {}

    def learn(name: str, operands: list[Shape | None]) -> None:
        if name not in stated or not stated[name].HasField("shape"):
            return
        dims = stated[name].shape.dim
        shape: list[Dimension] = []
        for axis, d in enumerate(dims):
            if d.HasField("dim_value"):
                shape.append(d.dim_value)
                continue
            symbol = d.dim_param or f"{name}[{axis}]"
            if symbol not in names:
                names[symbol] = _broadcast(operands, len(dims) - axis) or frozenset([symbol])
            shape.append(names[symbol])
        known[name] = tuple(shape)

    for given in (*inferred.input, *inferred.initializer):
        learn(given.name, [])
    for node in inferred.node:
        for output in node.output:
            learn(output, _operands(node, known))
    return known


def numbers(model: ir.Model) -> dict[str, tuple[int | None, ...]]:
    """Dimensions of the values of the main graph that follow from those that its inputs must have; others are None.

    What the model says about its own values is not believed.
    """
    proto = _skeleton(model)
    for graph in limits.all_graphs(proto):
        del graph.value_info[:]
        for output in graph.output:
            output.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    except onnx.shape_inference.InferenceError:
        return {}
    return {
        info.name: tuple(d.dim_value if d.HasField("dim_value") else None for d in info.type.tensor_type.shape.dim)
        for info in (*inferred.input, *inferred.value_info)
        if info.type.tensor_type.HasField("shape")
    }


def _operands(node: onnx.NodeProto, known: dict[str, Shape]) -> list[Shape | None]:
    """The shapes that `node` broadcasts; none where it does something else."""
    if node.domain != "":
        return []
    if node.op_type in _BROADCAST:
        return [known.get(name) for name in node.input]
    if node.op_type == "MatMul":  # the last two dimensions are none that it broadcasts
        found = [known.get(name) for name in node.input]
        return [None if s is None or len(s) < 2 else (*s[:-2], 1, 1) for s in found]
    return []


def _broadcast(operands: list[Shape | None], from_end: int) -> frozenset[str] | None:
    """The names that a dimension is broadcast from, `from_end` counted from 1; None if not all operands are known."""
    found: set[str] = set()
    for shape in operands:
        if shape is None:
            return None
        dimension = shape[-from_end] if from_end <= len(shape) else 1
        if isinstance(dimension, frozenset):
            found |= dimension
        elif dimension != 1:
            return None
    return frozenset(found) or None


def _skeleton(model: ir.Model) -> onnx.ModelProto:
    """The model without the data of large constants and with MatMuls for operators of ours."""
    proto = onnx.ModelProto(ir_version=max(model.ir_version, ops.MIN_IR_VERSION))
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.functions.extend(ir.serde.serialize_function(f) for f in model.functions.values() if f.domain != ops.DOMAIN)
    graph = proto.graph
    graph.name = model.graph.name or "graph"
    graph.input.extend(ir.serde.serialize_value(v) for v in model.graph.inputs)
    graph.output.extend(ir.serde.serialize_value(v) for v in model.graph.outputs)
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if value.is_graph_input() or tensor is None:
            continue
        if tensor.size <= _SMALL:
            graph.initializer.append(ir.serde.serialize_tensor(tensor))
            graph.initializer[-1].name = value.name or ""  # that of the tensor may be another
        else:
            dims = [int(d) for d in tensor.shape.numpy()]
            graph.input.append(onnx.helper.make_tensor_value_info(value.name or "", int(tensor.dtype), dims))
    for node in model.graph:
        if (node.domain, node.op_type) == (ops.DOMAIN, ops.QUANTIZE):
            continue  # products read what it reads here, and onnx 1.16 infers nothing beside what it does not know
        operator = ops.operator_of(node)
        graph.node.append(ir.serde.serialize_node(node) if operator is None else _matmul(node, operator, graph))
        graph.value_info.extend(
            ir.serde.serialize_value(v)
            for v in node.outputs
            if v.shape is not None and v.type is not None and not v.is_graph_output()
        )
    return proto


def _matmul(node: ir.Node, operator: ops.Operator, graph: onnx.GraphProto) -> onnx.NodeProto:
    """A MatMul with a weight of the same shape, which becomes an input of `graph`; the node if that is not known."""
    shape = constant(node.inputs[operator.constants_at + _SHAPE_AT.get(operator.encoding, 2)])
    if shape is None or (x := ops.activations_of(node)) is None:
        return ir.serde.serialize_node(node)
    output = node.outputs[0].name or ""
    weight = f"weight of {output}"
    graph.input.append(onnx.helper.make_tensor_value_info(weight, onnx.TensorProto.FLOAT, shape.tolist()))
    return onnx.helper.make_node("MatMul", [x.name or "", weight], [output])
