"""The operators of `ai.sparsify`: names, what they mean, and how to put one into a model.

An operator's name spells its semantics: SparseMatMul[Int8|Integer|Bf16][Delta|Columns|Rows], then nothing, an
activation (Relu, Gelu, GeluTanh, Silu, Sigmoid, Tanh), or Add for a residual. Integer is Int8 of rows that were
quantised before, by DynamicQuantizeRows: the one operator here that is no product.
Function overloads are not used: onnxruntime 1.18 to 1.23 silently runs the wrong one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify.formats import EncodedWeight, Encoding
from sparsify.ops import bodies

DOMAIN = bodies.DOMAIN
VERSION = bodies.VERSION
QUANTIZE = "DynamicQuantizeRows"  # X -> q, scale, zero point
MIN_OPSET = 11  # Round, CumSum and Clip with inputs
MIN_OPSET_BF16 = 13  # Cast from and to bfloat16
MIN_OPSET_COLUMNS = 16  # ScatterND with reduction
MIN_IR_VERSION = 8  # the first with model-local functions


class Values(str, Enum):
    """Type of the non-zeros, which also says in what the operator multiplies; the value is the operator name's part."""

    FP32 = ""
    INT8 = "Int8"
    BF16 = "Bf16"

    __str__ = str.__str__


class Activation(str, Enum):
    """What is applied after the bias; the value is the operator name's part."""

    NONE = ""
    RELU = "Relu"
    GELU = "Gelu"  # by erf
    GELU_TANH = "GeluTanh"  # its approximation by tanh
    SILU = "Silu"  # x sigmoid(x)
    SIGMOID = "Sigmoid"
    TANH = "Tanh"

    __str__ = str.__str__


@dataclass(frozen=True)
class Operator:
    """One product of the domain. Inputs: X, positions..., values, shape, [scale,] bias[, residual].

    Attributes:
        residual: the last input, of the shape of Y and not a constant, is added at the end; only without activation.
        quantized: the outputs of QUANTIZE stand in the place of X; only for int8.
    """

    values: Values
    encoding: Encoding
    activation: Activation
    residual: bool = False
    quantized: bool = False

    @cached_property
    def name(self) -> str:
        values = "Integer" if self.quantized else self.values
        end = "Add" if self.residual else self.activation
        return f"SparseMatMul{values}{self.encoding}{end}"

    @property
    def constants_at(self) -> int:
        """How many inputs stand before the constant ones."""
        return 3 if self.quantized else 1

    @property
    def scaled(self) -> bool:
        """Whether its weights are integers, and so have a scale."""
        return self.values is Values.INT8

    @property
    def integer(self) -> bool:
        """Whether it multiplies integers: those of rows meet activations as they are."""
        return self.scaled and self.encoding is not Encoding.ROWS

    @property
    def linear(self) -> Operator:
        """The same without activation and residual."""
        return Operator(self.values, self.encoding, Activation.NONE, quantized=self.quantized)

    @property
    def min_opset(self) -> int:
        if self.encoding is Encoding.COLUMNS:
            return MIN_OPSET_COLUMNS
        return MIN_OPSET_BF16 if self.values is Values.BF16 else MIN_OPSET


def _operators() -> Iterator[Operator]:
    for values in Values:
        for encoding in Encoding:
            if values is not Values.FP32 and encoding is Encoding.COLUMNS:
                continue  # at such sparsities bytes of positions outweigh bytes of values
            may_share = values is Values.INT8 and encoding is not Encoding.ROWS  # of rows X is not quantised
            for quantized in (False, True) if may_share else (False,):
                for activation in Activation:
                    yield Operator(values, encoding, activation, quantized=quantized)
                yield Operator(values, encoding, Activation.NONE, residual=True, quantized=quantized)


OPERATORS: dict[str, Operator] = {o.name: o for o in _operators()}


def operator_of(node: ir.Node) -> Operator | None:
    """The product that `node` calls; None when it is not one of ours."""
    return OPERATORS.get(node.op_type) if node.domain == DOMAIN else None


def activations_of(node: ir.Node) -> ir.Value | None:
    """X of a product of ours; None where it reads quantised rows and nobody knows of what."""
    operator, x = OPERATORS[node.op_type], node.inputs[0]
    if not operator.quantized or x is None:
        return x
    producer = x.producer()
    return producer.inputs[0] if producer is not None and producer.op_type == QUANTIZE else None


def model_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """The nodes of `model`, subgraphs and functions included, but not those that only define our operators."""
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        if function.domain != DOMAIN:
            yield from function.all_nodes()


def functions(operator: Operator, opset: int) -> dict[ir.OperatorIdentifier, ir.Function]:
    """The model-local functions that define `operator` in a model of ONNX `opset`, helpers included.

    With an operator of quantised rows comes the one that quantises them.
    """
    if opset < operator.min_opset:
        raise ValueError(f"{operator.name} needs opset {operator.min_opset}, got {opset}")
    found: dict[ir.OperatorIdentifier, ir.Function] = {}

    def visit(name: str) -> None:
        function = _function(name, opset)
        if function.identifier() in found:
            return
        for node in function:
            if node.domain == DOMAIN:
                visit(node.op_type)
        found[function.identifier()] = function  # after its callees: onnx's reference evaluator wants that

    if operator.quantized:
        visit(QUANTIZE)
    visit(operator.name)
    return found


def add_operator(model: ir.Model, operator: Operator) -> None:
    """Make `model` able to call `operator`: its functions, the domain, an IR version that has functions."""
    model.functions.update(functions(operator, model.opset_imports[""]))
    model.opset_imports[DOMAIN] = VERSION
    model.ir_version = max(model.ir_version, MIN_IR_VERSION)


def inputs_of(
    weight: EncodedWeight, bias: npt.NDArray[np.float32], scale: npt.NDArray[np.float32] | None
) -> dict[str, npt.NDArray[Any]]:
    """The constant inputs of the operator that multiplies by `weight`, by name and in order.

    Args:
        weight: W [K, N], int8 values if and only if there is a `scale`.
        bias: [N].
        scale: [N], the int8 operator's scale of each output column.
    """
    positions = {f"positions{i or ''}": p for i, p in enumerate(weight.positions)}
    arrays = {**positions, "values": weight.values, "shape": np.array(weight.shape, np.int64)}
    if scale is not None:
        arrays["scale"] = scale
    return {**arrays, "bias": bias}


def _function(name: str, opset: int) -> ir.Function:
    """A fresh copy of the function `name`, importing `opset`."""
    if (operator := OPERATORS.get(name)) is not None and operator != operator.linear:
        return _composed(operator, opset)
    body = _BY_OPSET_18[name] if opset >= 18 and name in _BY_OPSET_18 else getattr(bodies, name)
    proto = body.to_function_proto()
    proto.name = name
    for imported in proto.opset_import:
        if imported.domain == "":
            imported.version = opset
    return ir.serde.deserialize_function(proto)


_BY_OPSET_18 = {"RowMin": bodies.RowMin18, "RowMax": bodies.RowMax18}


def _composed(operator: Operator, opset: int) -> ir.Function:
    """The linear operator, then its activation or the sum with its residual."""
    linear = _function(operator.linear.name, opset)
    inputs = [ir.Value(name=v.name) for v in linear.inputs]
    product = ir.Node(DOMAIN, operator.linear.name, inputs, outputs=[ir.Value(name="linear")])
    last = "Add" if operator.residual else operator.activation.value
    read = list(product.outputs)
    if operator.residual:
        inputs = [*inputs, ir.Value(name="residual")]
        read.append(inputs[-1])
    domain = DOMAIN if hasattr(bodies, last) else ""
    end = ir.Node(domain, last, read, outputs=[ir.Value(name="Y")])
    graph = ir.Graph(inputs, end.outputs, nodes=[product, end], opset_imports={"": opset, DOMAIN: VERSION})
    return ir.Function(DOMAIN, operator.name, graph=graph, attributes=[])
