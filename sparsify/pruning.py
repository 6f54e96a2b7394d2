"""Linear layers in the order in which they can be pruned, and what surrounds each.

Layers that read the same value form a group. Groups go in graph order: when a group's turn comes all layers upstream
are done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify import graph
from sparsify.graph import FloatArray, Linear, sole_user

Feed = Mapping[str, npt.NDArray[Any]]
_Batch = list[npt.NDArray[np.float32]]
FEEDS = "calibration"  # key of `model.meta`: the feeds to learn from


def groups(model: ir.Model, layers: Sequence[Linear]) -> list[list[Linear]]:
    """The layers of `model` by the value that they read, in the order in which these values are computed."""
    found: dict[ir.Value, list[Linear]] = {}
    for layer in layers:
        found.setdefault(layer.x, []).append(layer)
    place = {node: i for i, node in enumerate(model.graph)}

    def position(x: ir.Value) -> int:
        producer = x.producer()
        return -1 if producer is None else place.get(producer, -1)

    return [found[x] for x in sorted(found, key=position)]


def stored(layer: Linear, weight: FloatArray) -> npt.NDArray[Any]:
    """W [K, N] in the orientation, the shape and the type in which the weight of `layer` is stored."""
    return laid_out(weight, layer.transposed, layer.tensor.dtype.numpy(), layer.tensor.shape.numpy())


def laid_out(weight: FloatArray, transposed: bool, dtype: npt.DTypeLike, shape: Sequence[int]) -> npt.NDArray[Any]:
    """W [K, N], or its transpose, as an array of that type and shape."""
    oriented = (weight.T if transposed else weight).astype(dtype, copy=False)
    return np.ascontiguousarray(oriented).reshape(shape)


def bias_of(layer: Linear) -> ir.Value | None:
    """The constant [N] that is added to the layer's output, if it may change: nobody else reads it."""
    if layer.alpha != 1:
        return None
    if layer.bias is not None:
        bias = layer.bias if layer.beta == 1 else None
    else:
        add = _adder(layer.output)
        bias = next((v for v in add.inputs if v is not None and v is not layer.output), None) if add else None
    if bias is None or not bias.is_initializer() or bias.is_graph_input() or bias.is_graph_output():
        return None
    tensor = bias.const_value
    fits = tensor is not None and tensor.dtype is ir.DataType.FLOAT and tuple(tensor.shape.numpy()) == (layer.shape[1],)
    return bias if fits and len(bias.uses()) == 1 else None


def shift_bias(bias: ir.Value, shift: FloatArray) -> None:
    """Add `shift` [N] to a constant."""
    tensor = bias.const_value
    assert tensor is not None  # see `bias_of`
    bias.const_value = ir.tensor(np.asarray(tensor.numpy() + shift, np.float32), name=tensor.name)


def residual_of(layer: Linear) -> ir.Value | None:
    """What the layer's output, its bias added, is added to; None if it is not."""
    if layer.alpha != 1:
        return None
    value = layer.output
    if (add := _adder(value)) is not None and any(graph.is_constant(v) for v in add.inputs):
        value = add.outputs[0]
        add = _adder(value)
    if add is None:
        return None
    return next((v for v in add.inputs if v is not None and v is not value), None)


def _adder(value: ir.Value) -> ir.Node | None:
    """The Add that alone reads `value`."""
    user = sole_user(value)
    return user if user is not None and user.op_type == "Add" and user.domain == "" else None
