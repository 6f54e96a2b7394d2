"""Convolutions that enlarge an image become products and back, or operators: always the same numbers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsify import cost, modelio, ops, runtime
from sparsify.convolutions import Window
from sparsify.passes.conv_matmul import ConvMatMul
from sparsify.passes.settle_layout import SettleLayout
from sparsify.pipeline import Pipeline, parse
from tests.passes.test_conv_matmul import kinds

C, N = 8, 6
OPERATORS = "conv-matmul,sparse-fp32{min_sparsity=0},settle-layout,fuse-epilogue"
NORM = "n = BatchNormalization(c, g, h, g, v) y = Relu(n)"


def network(
    attributes: str = "strides = [2, 2]",
    body: str = "y = Identity(c)",
    size: tuple[int | str, int | str] = (3, 5),
    kernel: tuple[int, ...] = (C, N, 4, 4),
    bias: bool = True,
    opset: int = 17,
) -> ir.Model:
    """x [B, C, H, W] -> y, by c = ConvTranspose(x, w, b) and `body`."""
    rng = np.random.default_rng(0)
    arrays = {"w": rng.standard_normal(kernel) / C**0.5, "u": rng.standard_normal((N, 3, 2, 2))}
    arrays |= {name: rng.standard_normal(N) for name in "bgh"}
    arrays["v"] = np.abs(arrays["b"]) + 0.5  # a variance
    arrays["s"] = np.full(1, 3e38)
    made = f"c = ConvTranspose<{attributes}>(x, w{', b' if bias else ''}) {body}"
    used = {name: a.astype(np.float32) for name, a in arrays.items() if f" {name}," in made or f" {name})" in made}
    declared = ", ".join(f"float[{','.join(map(str, a.shape))}] {name}" for name, a in used.items())
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : {opset}]>
        g (float[B,{C},{size[0]},{size[1]}] x, {declared}) => (float[B,D,I,J] y) {{ {made} }}"""
    )
    for value in [v for v in model.graph.inputs if v.name in used]:
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(used[str(value.name)], name=value.name)
        model.graph.register_initializer(value)
    return modelio.load(modelio.to_proto(model))


def answer(model: ir.Model, size: tuple[int, int] = (3, 5), batch: int = 2, **options: bool) -> np.ndarray:
    x = np.random.default_rng(1).standard_normal((batch, C, *size)).astype(np.float32)
    return next(iter(runtime.run(runtime.session(model, threads=1, **options), {"x": x}).values()))


def close(found: np.ndarray, expected: np.ndarray) -> None:
    # Sums of up to 16 C terms of magnitude near 1, in another order: 128 u sqrt(128) is 9e-5, and BatchNormalization
    # divides by no less than .7.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    taps=st.integers(1, 3),
    stride=st.integers(2, 3),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    batch=st.integers(1, 3),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    bias=st.booleans(),
)
def test_any_shape_is_the_same_product_and_the_same_convolution_again(
    taps: int, stride: int, size: tuple[int, int], batch: int, pads: tuple[int, ...], bias: bool
) -> None:
    result = [stride * (n + taps - 1) - a - b for n, a, b in zip(size, pads[:2], pads[2:], strict=True)]
    if min(result) < 1:
        return
    side = taps * stride
    attributes = f"strides = [{stride}, {stride}], pads = [{', '.join(map(str, pads))}]"
    whole, model = (network(attributes, size=size, kernel=(C, N, side, side), bias=bias) for _ in range(2))
    expected = answer(whole, size, batch)
    assert len(ConvMatMul()(model).changes) == 1
    assert (kinds(model)["ConvTranspose"], kinds(model)["MatMul"]) == (0, 1)
    close(answer(model, size, batch), expected)
    SettleLayout()(model)
    assert kinds(model) == kinds(whole)
    assert np.array_equal(answer(model, size, batch), expected)


def test_what_follows_is_part_of_the_operator_and_layouts_meet() -> None:
    twice = f"{NORM.replace('y =', 'r =')} z = ConvTranspose<strides = [2, 2]>(r, u) y = Relu(z)"
    whole, model = (network("strides = [2, 2], pads = [1, 1, 1, 1]", twice) for _ in range(2))
    Pipeline(parse(OPERATORS)).run(model)
    # To rows; points of the first, of the second; back to an image. The second reads one point: nothing is beside it.
    assert kinds(model) == {
        **{"SparseMatMulRelu": 2, "Transpose": 4, "Pad": 1, "Concat": 1},
        **{"Slice": 5, "Reshape": 4},
    }
    close(answer(model), answer(whole))
    close(answer(model, native=False), answer(whole))


def test_what_follows_is_part_of_the_convolution_that_is_left() -> None:
    model = network("strides = [2, 2]", NORM)
    Pipeline(parse("conv-matmul,settle-layout")).run(model)
    assert kinds(model) == {"ConvTranspose": 1, "Relu": 1}
    close(answer(model), answer(network("strides = [2, 2]", NORM)))


def test_a_bias_that_differs_from_point_to_point_cannot_go_back() -> None:
    model = network()
    ConvMatMul()(model)
    add = next(node for node in model.graph if node.op_type == "Add")
    bias = next(v for v in add.inputs if v is not None and v.const_value is not None)
    bias.const_value = ir.tensor(np.arange(4 * N, dtype=np.float32), name=bias.name)
    before = answer(model)
    assert "surrounds" in SettleLayout()(model).refusals[0].reason
    assert np.array_equal(answer(model), before)


@pytest.mark.parametrize(
    ("given_", "reason"),
    [
        ({"attributes": "strides = [1, 1]"}, "does not enlarge"),
        ({"attributes": "strides = [2, 4]"}, "does not enlarge"),
        ({"attributes": "strides = [2, 2], output_padding = [1, 1]"}, "follows from the size"),
        ({"attributes": 'strides = [2, 2], auto_pad = "SAME_UPPER"'}, "follows from the size"),
        ({"attributes": "strides = [2, 2], dilations = [2, 2]"}, "has gaps"),
        ({"attributes": "strides = [2, 2], group = 2", "kernel": (C, N // 2, 4, 4)}, "has groups"),
        ({"kernel": (C, N, 3, 3)}, "multiple of its stride"),
        ({"kernel": (C, N, 2, 4)}, "multiple of its stride"),
        ({"kernel": (C, N, 10, 10)}, "more than 4 sources"),
        ({"size": ("H", "W")}, "is not known"),
        ({"opset": 10}, "opset"),
    ],
)
def test_others_stay(given_: dict, reason: str) -> None:
    model = network(**given_)
    report = ConvMatMul()(model)
    assert not report.changes
    (refusal,) = report.refusals
    assert reason in refusal.reason


def test_an_infinite_kernel_stays() -> None:
    model = network()
    kernel = model.graph.initializers["w"].const_value.numpy().copy()
    kernel[0, 0, 0, 0] = np.inf
    model.graph.initializers["w"].const_value = ir.tensor(kernel, name="w")
    assert "infinity" in ConvMatMul()(model).refusals[0].reason


def test_what_would_overflow_is_not_made_part_of_a_convolution() -> None:
    model = network(body="y = Mul(c, s)")
    ConvMatMul()(model)
    assert kinds(model)["Mul"] == 1


def test_rows_are_those_of_the_product() -> None:
    model = network(size=(3, 5))
    passes = Pipeline(parse("conv-matmul,sparse-int8{min_speedup=1000,rows=7,threads=1}"))
    (step,) = [s for s in passes.run(model).steps if s.name == "sparse-int8"]
    assert [refusal.facts["rows"] for refusal in step.refusals] == [4 * 6]


def test_both_sides_of_a_measurement_compute_the_same() -> None:
    window = Window(2, 2, 3, 5, (1, 1, 1, 1))
    rng = np.random.default_rng(2)
    kernel = rng.standard_normal((C, N, 4, 4)).astype(np.float32)
    matrix, bias = window.matrix(kernel), np.tile(rng.standard_normal(N).astype(np.float32), 4)
    assert np.array_equal(window.kernel(matrix), kernel)
    dense = cost.dense_model(matrix, bias, ops.Activation.RELU, window=window)
    rewritten = dense.clone()
    Pipeline(parse(OPERATORS)).run(rewritten)
    assert kinds(dense) == {"ConvTranspose": 1, "Relu": 1}
    x = {"X": rng.standard_normal((2, C, 3, 5)).astype(np.float32)}
    found = [runtime.run(runtime.session(m, threads=1), x)["Y"] for m in (dense, rewritten)]
    assert found[0].shape == (2, N, 6, 10)
    close(*found)
    assert window.images(48) == 2


@pytest.mark.parametrize("inputs", ["x", "x, w", "x, w, b"])
@pytest.mark.parametrize("shape", ["", "[3,4]", "[1,3,4]"])
@pytest.mark.parametrize("missing", [False, True])
def test_what_no_runtime_takes_is_left(inputs: str, shape: str, missing: bool) -> None:
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float{shape} x) => (float y)
        <float[3,1,2,2] w = {{1,2,3,4,5,6,7,8,9,10,11,12}}, float[1] b = {{1}}>
        {{ y = ConvTranspose<strides = [2, 2]>({inputs}) }}"""
    )
    if missing:
        model.graph[0].replace_input_with(0, None)
    assert not ConvMatMul()(model).changes
