"""Single-node faults, as converters and people make them. Each gives a model and the nodes that are to blame.

A fault takes a model and leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx.numpy_helper

Array = np.ndarray
Fault = tuple[onnx.ModelProto, set[str]]


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """The node of that name."""
    return next(n for n in model.graph.node if n.name == name)


def weight_fault(model: onnx.ModelProto, name: str, change: Callable[[Array], Array], which: int = 1) -> Fault:
    """`change` made to the constant input `which` of the node `name`, in a copy that no other node reads."""
    other = _copy(model)
    at = node(other, name)
    tensor = next(t for t in other.graph.initializer if t.name == at.input[which])
    array = onnx.numpy_helper.to_array(tensor)
    at.input[which] = tensor.name + "_changed"
    other.graph.initializer.append(onnx.numpy_helper.from_array(change(array).astype(array.dtype), at.input[which]))
    return other, {name}


def attribute_fault(model: onnx.ModelProto, name: str, attribute: str, value: object) -> Fault:
    """Another value of an attribute."""
    other = _copy(model)
    at = node(other, name)
    kept = [a for a in at.attribute if a.name != attribute]
    del at.attribute[:]
    at.attribute.extend([*kept, onnx.helper.make_attribute(attribute, value)])
    return other, {name}


def operator_fault(model: onnx.ModelProto, name: str, op_type: str) -> Fault:
    """Another operator in the node's place."""
    other = _copy(model)
    node(other, name).op_type = op_type
    return other, {name}


def swapped_inputs(model: onnx.ModelProto, name: str, first: int = 0, second: int = 1) -> Fault:
    """Two inputs of one node in each other's place."""
    other = _copy(model)
    at = node(other, name)
    at.input[first], at.input[second] = at.input[second], at.input[first]
    return other, {name}


def dropped(model: onnx.ModelProto, name: str, through: int = 0) -> Fault:
    """The node is gone: who read it reads its input. Its readers are the first that can show it."""
    other = _copy(model)
    gone = node(other, name)
    for reader in other.graph.node:
        reader.input[:] = [gone.input[through] if i == gone.output[0] else i for i in reader.input]
    other.graph.node.remove(gone)
    return other, {name}


def transposed(weight: Array) -> Array:
    """A square matrix read in the other order; of others, the elements in that order in the same shape."""
    return np.ascontiguousarray(weight.T).reshape(weight.shape)


def saturated(weight: Array) -> Array:
    """int8 whose scale was taken from the median: what is larger is cut off."""
    scale = np.median(np.abs(weight)) / 127
    return np.clip(np.round(weight / scale), -127, 127) * scale


def per_tensor_int4(weight: Array) -> Array:
    """Rounded to 15 levels with one scale for all columns."""
    scale = np.abs(weight).max() / 7
    return np.round(weight / scale) * scale


def one_dead_column(weight: Array) -> Array:
    """A column of zeros."""
    changed = weight.copy()
    changed[..., 0] = 0
    return changed


def transposed_weight(model: onnx.ModelProto) -> Fault:
    """The fault that most other tests plant."""
    return weight_fault(model, "/l1_up_proj/MatMul", transposed)
