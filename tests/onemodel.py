"""A model of one operator of ours, for tests."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from ml_dtypes import bfloat16
from scipy.sparse import csc_array

from sparsify import kernels, ops
from sparsify.formats import EncodedWeight, Encoding, encode, encode_columns
from tests.strategies import Layer


def encoded(operator: ops.Operator, layer: Layer) -> EncodedWeight:
    if operator.encoding is Encoding.COLUMNS:
        return encode_columns(csc_array(layer.weight))
    if operator.values is ops.Values.BF16:
        return encode(layer.weight.astype(bfloat16), operator.encoding)
    return encode(layer.integers if operator.scaled else layer.weight, operator.encoding)


def operator_model(
    operator: ops.Operator, layer: Layer, opset: int = 17, weight: EncodedWeight | None = None
) -> onnx.ModelProto:
    """x [M, K] -> y [M, N] through `operator` with the weights of `layer`, or a given `weight`.

    Operators that add a residual have it as a second input [M, N].
    """
    arrays = ops.inputs_of(weight or encoded(operator, layer), layer.bias, layer.scale if operator.scaled else None)
    x = ir.val("x", ir.DataType.FLOAT, ["M", layer.weight.shape[0]])
    y = ir.val("y", ir.DataType.FLOAT, ["M", layer.weight.shape[1]])
    constants = [ir.val(name, const_value=ir.tensor(array, name=name)) for name, array in arrays.items()]
    inputs = [x]
    if operator.residual:
        inputs.append(ir.val("residual", ir.DataType.FLOAT, ["M", layer.weight.shape[1]]))
    nodes, rows = [], [x]
    if operator.quantized:
        rows = [ir.val(name) for name in ("q", "row_scale", "zero_point")]
        nodes.append(ir.Node(ops.DOMAIN, ops.QUANTIZE, [x], outputs=rows, name="quantize"))
    nodes.append(ir.Node(ops.DOMAIN, operator.name, [*rows, *constants, *inputs[1:]], outputs=[y], name="the_node"))
    graph = ir.Graph(inputs, [y], nodes=nodes, initializers=constants, opset_imports={"": opset}, name="one")
    model = ir.Model(graph, ir_version=7)
    ops.add_operator(model, operator)
    return ir.to_proto(model)


def session(model: onnx.ModelProto, *, native: bool, threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if native:
        assert kernels.register(options), "no native kernels on this machine"
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def feed(model: onnx.ModelProto, x: np.ndarray, residual: np.ndarray) -> dict[str, np.ndarray]:
    """The inputs of `model` among x and its residual."""
    given = {"x": x, "residual": residual}
    return {value.name: given[value.name] for value in model.graph.input}


def rows(
    model: onnx.ModelProto, x: np.ndarray, residual: np.ndarray | None = None, *, native: bool, threads: int = 1
) -> np.ndarray:
    given = feed(model, x, np.empty(0) if residual is None else residual)
    return session(model, native=native, threads=threads).run(None, given)[0]
