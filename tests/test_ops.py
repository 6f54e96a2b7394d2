"""The function bodies against NumPy, in two runtimes and all opsets; and the native kernels against the bodies."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from packaging.version import Version

from sparsify import kernels, ops
from sparsify.formats import Encoding
from sparsify.ops import OPERATORS, Activation, Operator, Values
from tests.onemodel import feed, operator_model, rows, session
from tests.references import (
    ACTIVATIONS,
    U,
    bf16,
    bf16_product_bound,
    body_bound,
    integer_product,
    product,
    product_bound,
)
from tests.strategies import Layer, layers

onnx_version, runtime_version = Version(onnx.__version__), Version(onnxruntime.__version__)
# The newest opset that each onnxruntime takes, by its own table of versions.
NEWEST = next(
    opset
    for since, opset in (("1.23", 23), ("1.22", 22), ("1.18", 21), ("1.17", 20))
    if runtime_version >= Version(since)
)
OPSETS = [
    opset for opset in (11, 12, 13, 14, 16, 17, 18, 19, 21, 23) if opset <= min(NEWEST, onnx.defs.onnx_opset_version())
]

native = pytest.mark.skipif(kernels.isa() in (None, "scalar"), reason="no native kernels for this CPU")
every_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=lambda o: o.name)


def assert_right(operator: Operator, layer: Layer, y: np.ndarray) -> None:
    """`y` is what `operator` means: to the bit for integers, within derived bounds for floats."""
    if operator.integer:
        linear = integer_product(layer.x, layer.integers, layer.scale, layer.bias).astype(np.float64)
        bound = np.zeros_like(linear)
    elif operator.encoding is Encoding.ROWS:
        weight = bf16(layer.weight) if operator.values is Values.BF16 else layer.weight
        if operator.scaled:  # integers of 8 bits times float32 are exact in float64
            weight = layer.integers * layer.scale.astype(np.float64)
        linear = product(layer.x, weight, layer.bias)
        bound = product_bound(layer.x, weight, layer.bias, factors=operator.scaled)
    elif operator.values is Values.BF16:
        rounded = bf16(layer.x), bf16(layer.weight), layer.bias
        linear, bound = product(*rounded), bf16_product_bound(*rounded)
    else:
        linear, bound = product(layer.x, layer.weight, layer.bias), product_bound(layer.x, layer.weight, layer.bias)
    if operator.activation:
        function, _, slope = ACTIVATIONS[operator.activation.value]
        linear, bound = function(linear), slope * bound + body_bound(operator.activation.value, np.abs(linear) + bound)
    if operator.residual:  # the sum is rounded once
        linear = linear + layer.residual
        bound = bound + U * (np.abs(linear) + bound)
    assert y.shape == linear.shape
    assert np.all(np.abs(y - linear) <= bound)


def some_layer(seed: int = 0, k: int = 130, n: int = 37, m: int = 9) -> Layer:
    rng = np.random.default_rng(seed)
    mask = rng.random((k, n)) < 0.4
    return Layer(
        weight=(mask * rng.standard_normal((k, n))).astype(np.float32),
        integers=(mask * rng.integers(-127, 128, (k, n))).astype(np.int8),
        bias=rng.standard_normal(n).astype(np.float32),
        scale=rng.uniform(1e-3, 1e-2, n).astype(np.float32),
        x=rng.standard_normal((m, k)).astype(np.float32),
    )


@every_operator
@pytest.mark.parametrize("opset", OPSETS)
def test_the_function_is_right_in_every_opset(operator: Operator, opset: int) -> None:
    if opset < operator.min_opset:
        with pytest.raises(ValueError, match="needs opset"):
            ops.functions(operator, opset)
        return
    layer = some_layer()
    model = operator_model(operator, layer, opset)
    onnx.checker.check_model(model)
    assert model.ir_version == ops.MIN_IR_VERSION
    assert_right(operator, layer, rows(model, layer.x, layer.residual, native=False))
    if onnx_version < Version("1.17"):
        return  # its evaluator's CumSum makes int64 of int32
    reference = ReferenceEvaluator(model).run(None, feed(model, layer.x, layer.residual))[0]
    assert_right(operator, layer, reference)


@settings(deadline=None, max_examples=25)
@given(layer=layers(), operator=st.sampled_from(list(OPERATORS.values())), opset=st.sampled_from([13, 17, 18]))
def test_a_stock_session_is_right_for_any_shape(layer: Layer, operator: Operator, opset: int) -> None:
    if opset < operator.min_opset:
        return
    model = operator_model(operator, layer, opset)
    assert_right(operator, layer, rows(model, layer.x, layer.residual, native=False))


@native
@settings(deadline=None, max_examples=40)
@given(layer=layers(), operator=st.sampled_from(list(OPERATORS.values())), threads=st.sampled_from([1, 2]))
def test_a_session_with_our_kernels_is_right_for_any_shape(layer: Layer, operator: Operator, threads: int) -> None:
    model = operator_model(operator, layer)
    assert_right(operator, layer, rows(model, layer.x, layer.residual, native=True, threads=threads))


@native
@pytest.mark.parametrize(
    "name",
    ["SparseMatMulInt8", "SparseMatMulInt8DeltaRelu", "SparseMatMulInt8Add", "SparseMatMulInteger"],
)
def test_kernel_and_function_agree_to_the_bit_on_integers(name: str) -> None:
    layer = some_layer()
    model = operator_model(OPERATORS[name], layer)
    y = rows(model, layer.x, layer.residual, native=True)
    assert np.array_equal(y, rows(model, layer.x, layer.residual, native=False))


@native
@pytest.mark.parametrize("end", ["", "Gelu", "Add"])
@settings(deadline=None, max_examples=20)
@given(layer=layers())
def test_shared_rows_give_the_same_bits(layer: Layer, end: str) -> None:
    apart, shared = (operator_model(OPERATORS[f"SparseMatMul{kind}{end}"], layer) for kind in ("Int8", "Integer"))
    given = layer.x, layer.residual
    assert np.array_equal(rows(shared, *given, native=True), rows(apart, *given, native=True))
    assert np.array_equal(rows(shared, *given, native=False), rows(apart, *given, native=False))


@native
@pytest.mark.parametrize("name", ["SparseMatMulInt8", "SparseMatMulInteger"])
def test_a_forced_lower_isa_gives_the_same_integers(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    layer = some_layer()
    model = operator_model(OPERATORS[name], layer)
    expected = rows(model, layer.x, native=True)
    for isa in kernels.isas():
        monkeypatch.setenv(kernels.ISA_VARIABLE, isa)
        assert kernels.isa() == isa
        assert np.array_equal(rows(model, layer.x, native=True), expected)


@native
@pytest.mark.parametrize("shape", [(0, 130), (130,), (2, 130), (2, 0, 130), (2, 3, 130), (1, 2, 3, 130)])
@pytest.mark.parametrize("name", ["SparseMatMul", "SparseMatMulInt8", "SparseMatMulInteger", "SparseMatMulColumns"])
def test_leading_dimensions_are_kept(name: str, shape: tuple[int, ...]) -> None:
    layer = some_layer()
    model = operator_model(OPERATORS[name], layer)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    if name == "SparseMatMulColumns" and len(shape) == 1:
        return  # gather needs the leading dimensions of a matrix
    y, expected = rows(model, x, native=True), rows(model, x, native=False)
    assert y.shape == expected.shape == (*shape[:-1], 37)
    bound = product_bound(x.reshape(-1, 130), layer.weight, layer.bias).reshape(y.shape)
    assert np.all(np.abs(y - expected) <= (0 if name.startswith("SparseMatMulInt") else 2 * bound))


@native
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name",
    [
        *("SparseMatMul", "SparseMatMulDelta", "SparseMatMulColumns"),
        *("SparseMatMulInt8", "SparseMatMulInteger", "SparseMatMulBf16"),
    ],
)
def test_rows_that_are_not_finite_agree(name: str, bad: float) -> None:
    layer = some_layer()
    layer.x[3, 129] = bad
    model = operator_model(OPERATORS[name], layer)
    for y in (rows(model, layer.x, native=True), rows(model, layer.x, native=False)):
        assert np.isnan(y[3]).all()
        assert np.isfinite(np.delete(y, 3, axis=0)).all()


@native
@pytest.mark.parametrize(
    "name",
    [
        *("SparseMatMul", "SparseMatMulInt8Delta", "SparseMatMulIntegerDelta"),
        *("SparseMatMulColumns", "SparseMatMulBf16"),
    ],
)
def test_broken_weights_are_an_error_that_names_the_node(name: str) -> None:
    layer = some_layer()
    model = operator_model(OPERATORS[name], layer)
    values = next(t for t in model.graph.initializer if t.name == "values")
    values.dims[0] -= 1
    values.raw_data = values.raw_data[: -len(values.raw_data) // (values.dims[0] + 1)]
    with pytest.raises(Exception, match=rf"{name} node `the_node`: .*(positions|gaps|rows)"):
        session(model, native=True)


@native
def test_the_wrong_width_is_an_error_that_says_both() -> None:
    model = operator_model(OPERATORS["SparseMatMul"], some_layer())
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(Exception, match="X has 7 inputs in its last dimension, the weight has 130"):
        rows(model, np.zeros((2, 7), np.float32), native=True)


def quantised_model(layer: Layer) -> onnx.ModelProto:
    """SparseMatMulInteger on rows that somebody else has quantised: inputs q, row_scale and zero_point."""
    model = operator_model(OPERATORS["SparseMatMulInteger"], layer)
    model.graph.node.pop(0)
    types = {"q": onnx.TensorProto.UINT8, "row_scale": onnx.TensorProto.FLOAT, "zero_point": onnx.TensorProto.UINT8}
    model.graph.input.pop(0)
    model.graph.input.extend(onnx.helper.make_tensor_value_info(n, t, None) for n, t in types.items())
    return model


@native
@pytest.mark.parametrize("short", ["row_scale", "zero_point"])
@pytest.mark.parametrize("shape", [(8, 1), (9,), (1, 9, 1), (9, 2), (0, 1)])
def test_scales_and_zero_points_of_another_shape_are_an_error_that_says_all(short: str, shape: tuple[int, ...]) -> None:
    given = {"q": np.zeros((9, 130), np.uint8)}
    given |= {"row_scale": np.ones((9, 1), np.float32), "zero_point": np.zeros((9, 1), np.uint8)}
    given[short] = np.zeros(shape, given[short].dtype)
    opened = session(quantised_model(some_layer()), native=True)
    with pytest.raises(
        Exception, match=rf"rows of shape \[9, 130\] have scales of shape .*{re.escape(str(list(shape)))}"
    ):
        opened.run(None, given)


@native
def test_rows_that_nobody_quantised_are_multiplied_as_the_function_does() -> None:
    layer, rng = some_layer(), np.random.default_rng(5)
    given = {"q": rng.integers(0, 256, (9, 130), np.uint8), "zero_point": rng.integers(0, 256, (9, 1), np.uint8)}
    given["row_scale"] = rng.standard_normal((9, 1)).astype(np.float32)
    given["row_scale"][:3, 0] = np.nan, np.inf, 0
    model = quantised_model(layer)
    ours, theirs = (session(model, native=native).run(None, given)[0] for native in (True, False))
    assert np.array_equal(ours, theirs, equal_nan=True)


@native
def test_rows_of_no_inputs_are_an_error() -> None:
    model = operator_model(OPERATORS["SparseMatMulInteger"], some_layer())
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(Exception, match=r"X has shape \[2, 0\]"):
        rows(model, np.zeros((2, 0), np.float32), native=True)


@native
@pytest.mark.parametrize("shape", [(1, 37), (37,), (9, 1), (1, 9, 37)])
@pytest.mark.parametrize("name", ["SparseMatMulAdd", "SparseMatMulInt8DeltaAdd", "SparseMatMulColumnsAdd"])
def test_a_residual_of_another_shape_is_an_error_that_says_both(name: str, shape: tuple[int, ...]) -> None:
    layer = some_layer()
    model = operator_model(OPERATORS[name], layer)
    model.graph.input[1].type.tensor_type.ClearField("shape")
    with pytest.raises(Exception, match=rf"residual has shape {re.escape(str(list(shape)))}, the product \[9, 37\]"):
        rows(model, layer.x, np.zeros(shape, np.float32), native=True)


@native
@pytest.mark.parametrize("name", ["SparseMatMulAdd", "SparseMatMulInt8Add"])
def test_a_residual_has_the_dimensions_of_its_product(name: str) -> None:
    layer = some_layer()
    model = operator_model(OPERATORS[name], layer)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")
    for shape in ((0,), (3, 3), (1, 3, 3)):
        x, residual = (
            layer.x[: np.prod(shape)].reshape(*shape, 130),
            layer.residual[: np.prod(shape)].reshape(*shape, 37),
        )
        y = rows(model, x, residual, native=True)
        flat = rows(model, layer.x, layer.residual, native=True)[: np.prod(shape)]
        assert np.array_equal(y, flat.reshape(residual.shape)) or not OPERATORS[name].integer
        assert y.shape == residual.shape


@native
def test_weights_that_are_not_constant_are_an_error() -> None:
    model = operator_model(OPERATORS["SparseMatMul"], some_layer())
    values = next(t for t in model.graph.initializer if t.name == "values")
    model.graph.input.append(onnx.helper.make_tensor_value_info("values", values.data_type, values.dims))
    with pytest.raises(Exception, match="`values` is not a constant"):
        session(model, native=True)


def test_an_unknown_isa_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.ISA_VARIABLE, "avx9")
    with pytest.raises(Exception, match="no kernels for `avx9`"):
        kernels.isa()


def test_names_spell_semantics_and_are_unique() -> None:
    assert len(OPERATORS) == 12 * (7 + 1)  # products, by activations or a residual
    assert Operator(Values.INT8, Encoding.DELTA, Activation.GELU).name == "SparseMatMulInt8DeltaGelu"
    assert Operator(Values.FP32, Encoding.BITMASK, Activation.NONE, residual=True).name == "SparseMatMulAdd"
    assert Operator(Values.BF16, Encoding.BITMASK, Activation.NONE, residual=True).name == "SparseMatMulBf16Add"
    assert Operator(Values.INT8, Encoding.DELTA, Activation.RELU, quantized=True).name == "SparseMatMulIntegerDeltaRelu"
    for name, operator in OPERATORS.items():
        assert ops.operator_of(ir.Node(ops.DOMAIN, name, [])) == operator
        assert operator.linear == dataclasses.replace(operator, activation=Activation.NONE, residual=False)
    assert ops.operator_of(ir.Node("", "MatMul", [])) is None
