"""Networks from SciPy's sparse matrices, never made dense."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import scipy.sparse

from sparsify import ops, storage
from sparsify.errors import InputError
from sparsify.formats import Encoding, encode_columns

Layer = tuple[Any, "npt.ArrayLike | None", "str | None"]

OPSET = 18
_ACTIVATIONS = {a.value or None: a for a in ops.Activation}
_PLAIN = (None, "Relu", "Sigmoid", "Tanh")  # one operator of ONNX each
_NONZERO_BYTES = 5  # of a weight that is stored with its position; one of a dense matrix takes 4


def from_scipy(layers: Iterable[Layer]) -> ir.Model:
    """A feed-forward network of sparse layers: y = activation(x W + bias), one after another.

    Layers are taken one by one, and what was made of them goes to the disk once it is more than 1 GiB: a generator
    builds a network that memory would not hold. A matrix that takes no more bytes dense, as the last one of a trained
    network often does, becomes a Gemm (of 4000x10, 100 rows: in half of the time on Zen 3).

    Args:
        layers: (W, bias, activation) each: W any SciPy sparse matrix [inputs, outputs], bias [outputs] or None,
            activation "Relu", "Gelu", "GeluTanh", "Silu", "Sigmoid", "Tanh" or None. A layer has as many inputs as
            the one before it has outputs.

    Returns:
        A model from `x` float32 [batch, inputs] to `y` float32 [batch, outputs], opset 18.

    Raises:
        InputError: no layer, a matrix that is not sparse or not finite, sizes that do not fit, an unknown activation.
    """
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": OPSET}, name="from_scipy")
    model = ir.Model(graph, ir_version=ops.MIN_IR_VERSION, producer_name="sparsify")
    for number, layer in enumerate(layers):
        if number == 0:
            x.shape = ir.Shape(["batch", layer[0].shape[0] if scipy.sparse.issparse(layer[0]) else 0])
        x = _add_layer(model, x, layer, number)
    if not graph.num_nodes():
        raise InputError("a network needs a layer", where="from_scipy", hint="give [(W, bias, activation), ...]")
    x.name = "y"
    graph.outputs.append(x)
    return model


def _add_layer(model: ir.Model, x: ir.Value, layer: Layer, number: int) -> ir.Value:
    """Append one layer that reads `x`; its output."""
    matrix, bias, activation = _checked(layer, x, f"from_scipy, layer {number}")
    if dense := activation in _PLAIN and 4 * matrix.shape[0] * matrix.shape[1] <= _NONZERO_BYTES * matrix.nnz:
        arrays = {"weight": matrix.toarray().astype(np.float32, copy=False), "bias": bias}
    else:
        arrays = ops.inputs_of(encode_columns(matrix), bias, None)
    name, graph = f"layer{number}", model.graph
    so_far = sum(value.const_value.nbytes for value in graph.initializers.values() if value.const_value is not None)
    if so_far + sum(array.nbytes for array in arrays.values()) > storage.LARGE_BYTES and not storage.is_large(graph):
        storage.keep_out_of_memory(graph)
    inputs = [x, *(_initializer(graph, f"{name}.{key}", array) for key, array in arrays.items())]
    width = matrix.shape[1]
    if not dense:
        operator = ops.Operator(ops.Values.FP32, Encoding.COLUMNS, _ACTIVATIONS[activation])
        ops.add_operator(model, operator)
        return _append(graph, (ops.DOMAIN, operator.name), inputs, name, width)
    y = _append(graph, ("", "Gemm"), inputs, f"{name}.gemm" if activation else name, width)
    return _append(graph, ("", activation), [y], name, width) if activation else y


def _append(graph: ir.Graph, operator: tuple[str, str], inputs: list[ir.Value], name: str, width: int) -> ir.Value:
    """Append a node of `operator`, (domain, name); its output [batch, width] is named as it is."""
    output = ir.Value(name=name, shape=ir.Shape(["batch", width]), type=ir.TensorType(ir.DataType.FLOAT))
    graph.append(ir.Node(operator[0], operator[1], inputs, outputs=[output], name=name))
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
    if matrix.nnz and not np.isfinite([matrix.data.min(), matrix.data.max()]).all():  # both are NaN if one value is
        raise InputError("W holds a NaN or an infinity", where=where)
    vector = np.zeros(outputs, np.float32) if bias is None else np.asarray(bias, np.float32)
    if vector.shape != (outputs,):
        raise InputError(f"bias has shape {list(vector.shape)}, must be [{outputs}]", where=where)
    if activation not in _ACTIVATIONS:
        known = ", ".join(str(a) for a in _ACTIVATIONS)
        raise InputError(f"there is no activation `{activation}`", where=where, hint=f"one of {known}")
    return matrix, vector, activation


def _initializer(graph: ir.Graph, name: str, array: npt.NDArray[Any]) -> ir.Value:
    tensor = storage.tensor(array, name, graph)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value
