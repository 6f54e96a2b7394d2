"""Networks from SciPy's sparse matrices, never made dense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import scipy.sparse

from sparsify import ops
from sparsify.errors import InputError
from sparsify.formats import Encoding, encode_columns

Layer = tuple[Any, "npt.ArrayLike | None", "str | None"]

OPSET = 18
_ACTIVATIONS = {a.value or None: a for a in ops.Activation}


def from_scipy(layers: Sequence[Layer]) -> ir.Model:
    """A feed-forward network of sparse layers: y = activation(x W + bias), one after another.

    Args:
        layers: (W, bias, activation) each: W any SciPy sparse matrix [inputs, outputs], bias [outputs] or None,
            activation "Relu", "Gelu", "GeluTanh", "Silu", "Sigmoid", "Tanh" or None. A layer has as many inputs as
            the one before it has outputs.

    Returns:
        A model from `x` float32 [batch, inputs] to `y` float32 [batch, outputs], opset 18.

    Raises:
        InputError: no layer, a matrix that is not sparse or not finite, sizes that do not fit, an unknown activation.
    """
    if not layers:
        raise InputError("a network needs a layer", where="from_scipy", hint="give [(W, bias, activation), ...]")
    width = layers[0][0].shape[0] if scipy.sparse.issparse(layers[0][0]) else 0
    x = ir.Value(name="x", shape=ir.Shape(["batch", width]), type=ir.TensorType(ir.DataType.FLOAT))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": OPSET}, name="from_scipy")
    model = ir.Model(graph, ir_version=ops.MIN_IR_VERSION, producer_name="sparsify")
    for number, layer in enumerate(layers):
        x = _add_layer(model, x, layer, number, last=number == len(layers) - 1)
    graph.outputs.append(x)
    return model


def _add_layer(model: ir.Model, x: ir.Value, layer: Layer, number: int, *, last: bool) -> ir.Value:
    """Append one layer that reads `x`; its output."""
    where = f"from_scipy, layer {number}"
    matrix, bias, activation = _checked(layer, x, where)
    operator = ops.Operator(ops.Values.FP32, Encoding.COLUMNS, _ACTIVATIONS[activation])
    ops.add_operator(model, operator)
    arrays = ops.inputs_of(encode_columns(matrix), bias, None)
    constants = [_initializer(model, f"layer{number}.{name}", array) for name, array in arrays.items()]
    output = ir.Value(
        name="y" if last else f"layer{number}",
        shape=ir.Shape(["batch", matrix.shape[1]]),
        type=ir.TensorType(ir.DataType.FLOAT),
    )
    name = f"layer{number}"
    model.graph.append(ir.Node(ops.DOMAIN, operator.name, [x, *constants], outputs=[output], name=name))
    return output


def _checked(layer: Layer, x: ir.Value, where: str) -> tuple[Any, npt.NDArray[np.float32], str | None]:
    matrix, bias, activation = layer
    if not scipy.sparse.issparse(matrix):
        raise InputError(
            f"W must be a SciPy sparse matrix, got {type(matrix).__name__}",
            where=where,
            hint="scipy.sparse.csc_array(W) makes one of an array",
        )
    assert x.shape is not None
    inputs, outputs = matrix.shape
    if inputs != x.shape[1]:
        raise InputError(f"W has {inputs} inputs, and {x.shape[1]} come in", where=where, hint="W is [inputs, outputs]")
    matrix = scipy.sparse.csc_array(matrix)
    if not np.isfinite(matrix.data).all():
        raise InputError("W holds a NaN or an infinity", where=where)
    vector = np.zeros(outputs, np.float32) if bias is None else np.asarray(bias, np.float32)
    if vector.shape != (outputs,):
        raise InputError(f"bias has shape {list(vector.shape)}, must be [{outputs}]", where=where)
    if activation not in _ACTIVATIONS:
        known = ", ".join(str(a) for a in _ACTIVATIONS)
        raise InputError(f"there is no activation `{activation}`", where=where, hint=f"one of {known}")
    return matrix, vector, activation


def _initializer(model: ir.Model, name: str, array: npt.NDArray[Any]) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(value)
    return value
