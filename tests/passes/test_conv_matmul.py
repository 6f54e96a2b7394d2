"""Convolutions of one point become products and back, or operators between as few transpositions as there can be."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsify
from sparsify import modelio, runtime
from sparsify.passes.conv_matmul import ConvMatMul
from sparsify.passes.settle_layout import SettleLayout
from sparsify.pipeline import Pipeline, parse
from sparsify.rewrite import Refusal

K, N = 24, 40
GELU = """
    h{i} = Div(c{i}, root) e{i} = Erf(h{i}) f{i} = Add(e{i}, one) g{i} = Mul(c{i}, f{i}) r{i} = Mul(g{i}, half)
"""


def network(body: str, output: str = "y", attributes: str = "") -> ir.Model:
    """x [B, K, H, W] -> y; kernels u [N, K, 1, 1] and v [K, N, 1, 1], biases b [N] and p [1, N, 1, 1]."""
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[B,{K},H,W] x{attributes}) => (float[B,C,I,J] {output})
        <float root = {{1.41421354}}, float one = {{1}}, float half = {{0.5}}> {{ {body} }}"""
    )
    rng = np.random.default_rng(0)
    shapes = {"u": (N, K, 1, 1), "v": (K, N, 1, 1), "b": (N,), "p": (1, N, 1, 1), "t": (N, K, 3, 3), "d": (K, 1, 1, 1)}
    shapes |= {"b2": (N,), "b3": (N,), "w": (N,), "e": (K,), "f": (K,), "q": (K,)}
    for name, shape in shapes.items():
        array = rng.standard_normal(shape).astype(np.float32) / np.float32(np.prod(shape[1:]) ** 0.5)
        array = np.abs(array) if name in ("w", "q") else array  # a variance
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name), type=ir.TensorType(ir.DataType.FLOAT))
        value.shape = ir.Shape(shape)
        readers = [(n, i) for n in model.graph for i, v in enumerate(n.inputs) if v is not None and v.name == name]
        if readers:
            model.graph.register_initializer(value)
        for node, index in readers:
            node.replace_input_with(index, value)
    return modelio.load(modelio.to_proto(model))


def feed(batch: int = 2, height: int = 3, width: int = 5) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((batch, K, height, width)).astype(np.float32)}


def answers(model: ir.Model, given: dict[str, np.ndarray] | None = None, **options: bool) -> np.ndarray:
    return next(iter(runtime.run(runtime.session(model, threads=1, **options), given or feed()).values()))


def kinds(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


PLAIN = "y = Conv(x, u, b)"
PAIR = f"c1 = Conv(x, u, b) {GELU.replace('{i}', '1')} y = Conv(r1, v)"
ADDED = "c = Conv(x, u) y = Add(c, p)"
SCALED = "c = Conv(x, u, b) m = Mul(half, c) n = Add(m, one) y = Relu(n)"
LAST = """
    c = Conv(x, u, b) o = Transpose<perm = [0, 2, 3, 1]>(c) k = Cast<to = 1>(o)
    s = Sub(k, b2) m = Mul(s, b3) n = Add(b, m)
    l = Cast<to = 1>(n) r = Relu(l) y = Transpose<perm = [0, 3, 1, 2]>(r)
"""
NORMALIZED = "c = Conv(x, u) n = BatchNormalization<epsilon = 0.01>(c, b, b2, b3, w) m = Mul(n, p) y = Relu(m)"
TWICE = "c = Conv(x, u, b) r = Relu(c) y = Add(c, r)"


@pytest.mark.parametrize("body", [PLAIN, PAIR, ADDED, TWICE])
def test_products_are_the_same_and_turn_back_into_the_same_convolutions(body: str) -> None:
    whole, model = network(body), network(body)
    convolutions = kinds(whole)["Conv"]
    report = ConvMatMul()(model)
    assert len([c for c in report.changes if c.node]) == kinds(model)["MatMul"] == convolutions
    # One product of 24 or 40 terms at a time, in another order: 40 u of magnitudes near 1, twice in a pair.
    np.testing.assert_allclose(answers(model), answers(whole), rtol=0, atol=2e-5)
    back = SettleLayout()(model)
    assert len(back.refusals) == convolutions
    assert [change.node for change in back.changes] == [""]  # about the model, no layer of which became anything
    assert kinds(model)["Conv"] == convolutions
    assert not {"MatMul", "Transpose"} & kinds(model).keys()
    assert np.array_equal(answers(model), answers(whole))
    assert set(model.graph.initializers) >= {"u"}


def test_an_activation_is_fused_and_transpositions_meet() -> None:
    whole, model = network(PAIR), network(PAIR)
    Pipeline(parse("conv-matmul,sparse-int8,settle-layout,fuse-epilogue")).run(model)
    assert kinds(model) == {"Transpose": 2, "SparseMatMulInt8Gelu": 1, "SparseMatMulInt8": 1}
    expected, found = answers(whole), answers(model)
    assert found.shape == expected.shape
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999
    np.testing.assert_allclose(answers(model, native=False), found, rtol=0, atol=1e-4)


def test_a_bias_that_is_added_becomes_part_of_the_product() -> None:
    model = network(ADDED)
    Pipeline(parse("conv-matmul,sparse-fp32{min_sparsity=0},settle-layout,fuse-epilogue")).run(model)
    assert kinds(model) == {"Transpose": 2, "SparseMatMul": 1}
    np.testing.assert_allclose(answers(model), answers(network(ADDED)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "passes", ["conv-matmul,settle-layout", "conv-matmul,sparse-fp32{min_sparsity=0},settle-layout"]
)
@pytest.mark.parametrize("body", [NORMALIZED, SCALED, LAST])
def test_what_is_a_number_a_channel_becomes_part_of_the_product(passes: str, body: str) -> None:
    model = network(body)
    Pipeline(parse(f"{passes},fuse-epilogue")).run(model)
    assert kinds(model) - Counter(Transpose=2) in ({"Conv": 1, "Relu": 1}, {"SparseMatMulRelu": 1})
    np.testing.assert_allclose(answers(model), answers(network(body)), rtol=0, atol=1e-4)


def test_what_is_a_number_a_channel_becomes_part_of_larger_convolutions() -> None:
    body = "c = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(x, t) n = BatchNormalization(c, b, b2, b3, w) y = Relu(n)"
    model = network(body)
    assert [change.node for change in ConvMatMul()(model).changes] == [""]
    assert kinds(model) == {"Conv": 1, "Relu": 1}
    np.testing.assert_allclose(answers(model), answers(network(body)), rtol=0, atol=1e-4)


def test_what_is_a_number_a_channel_becomes_part_of_convolutions_with_groups() -> None:
    body = f"c = Conv<group = {K}>(x, d) n = BatchNormalization(c, e, f, e, q) y = Relu(n)"
    model = network(body)
    ConvMatMul()(model)
    assert kinds(model) == {"Conv": 1, "Relu": 1}
    np.testing.assert_allclose(answers(model), answers(network(body)), rtol=0, atol=1e-4)


def test_rows_are_the_points_of_an_image_where_these_are_known() -> None:
    model = network("c = Conv(x, u) o = GlobalAveragePool(c) y = Conv(o, v)")
    passes = Pipeline(parse("conv-matmul,sparse-int8{min_speedup=1000,rows=7,threads=1}"))
    (step,) = [s for s in passes.run(model).steps if s.name == "sparse-int8"]
    assert [refusal.facts["rows"] for refusal in step.refusals] == [7, 1]


def test_inspect_counts_convolutions_and_their_zeros() -> None:
    report = sparsify.inspect(network(PAIR), rows=4, threads=1)
    assert report["model"]["linear"] == len(report["nodes"]) == 2
    assert report["model"]["linear_share"] > 0.9
    assert [row["zeros"] for row in report["nodes"]] == [0, 0]


def test_normalization_that_gives_no_numbers_stays() -> None:
    model = network("c = Conv(x, u) y = BatchNormalization<epsilon = -100.0>(c, b, b2, b3, w)")
    ConvMatMul()(model)
    assert kinds(model)["BatchNormalization"] == 1


def test_what_two_nodes_read_stays_an_image() -> None:
    model = network(TWICE)
    Pipeline(parse("conv-matmul,sparse-fp32{min_sparsity=0},settle-layout,fuse-epilogue")).run(model)
    assert kinds(model) == {"Transpose": 2, "SparseMatMul": 1, "Relu": 1, "Add": 1}
    np.testing.assert_allclose(answers(model), answers(network(TWICE)), rtol=0, atol=1e-5)


def test_an_output_in_between_keeps_its_name_and_layout() -> None:
    body = "c = Conv(x, u, b) y = Relu(c) z = Conv(y, v)"
    model = network(body, output="y, float[B,D,I,J] z")
    Pipeline(parse("conv-matmul,sparse-fp32{min_sparsity=0},settle-layout,fuse-epilogue")).run(model)
    expected = runtime.run(runtime.session(network(body, output="y, float[B,D,I,J] z")), feed())
    found = runtime.run(runtime.session(model), feed())
    assert list(found) == ["y", "z"]
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = Conv<strides = [2, 2]>(x, u)", "leaves points out"),
        ("y = Conv<pads = [1, 1, 1, 1]>(x, u)", "adds points around"),
        (f"y = Conv<group = {K}>(x, d)", "has groups"),
        ("y = Conv(x, t)", ""),
    ],
)
def test_other_convolutions_stay(body: str, reason: str) -> None:
    model = network(body)
    report = ConvMatMul()(model)
    assert not report.changes
    assert [r.reason for r in report.refusals if reason] == ([f"the convolution {reason}"] if reason else [])
    assert len(report.refusals) == bool(reason)


def test_a_product_whose_surroundings_changed_is_left() -> None:
    model = network(PLAIN)
    ConvMatMul()(model)
    product = next(node for node in model.graph if node.op_type == "MatMul")
    doubled = ir.node("Add", [product.outputs[0], product.outputs[0]])
    doubled.outputs[0].name = "doubled"
    ir.convenience.replace_all_uses_with(product.outputs[0], doubled.outputs[0])
    for index in (0, 1):
        doubled.replace_input_with(index, product.outputs[0])
    model.graph.insert_after(product, doubled)
    before = answers(model)
    report = SettleLayout()(model)
    assert [type(event) for event in report.refusals] == [Refusal]
    assert np.array_equal(answers(model), before)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7), st.sampled_from([PLAIN, PAIR, ADDED]))
def test_any_shape(batch: int, height: int, width: int, body: str) -> None:
    model, given_ = network(body), feed(batch, height, width)
    Pipeline(parse("conv-matmul,sparse-fp32{min_sparsity=0},settle-layout,fuse-epilogue")).run(model)
    np.testing.assert_allclose(answers(model, given_), answers(network(body), given_), rtol=0, atol=2e-5)


def test_pruning_that_nothing_came_of_is_taken_back_before_the_convolution_is() -> None:
    whole = network(PLAIN)
    result = sparsify.optimize(
        whole,
        [feed() for _ in range(8)],
        passes="conv-matmul,prune{sparsity=0.5,min_size=1,method=magnitude},sparse-fp32{min_speedup=1000},settle-layout",
    )
    assert not result.changed
    table = {row["name"]: row for row in result.report["nodes"]}
    assert all(row["decision"] == "left" for row in table.values())
    assert any("taken back" in row["reason"] for row in table.values())


@pytest.mark.parametrize(("method", "pruned"), [("auto", 0), ("magnitude", 2)])
def test_without_data_convolutions_are_only_pruned_where_that_is_asked_for(method: str, pruned: int) -> None:
    model = network(PAIR)
    prune = f"prune{{min_size=1,sparsity=0.5,pattern=unstructured,method={method}}}"
    report = Pipeline(parse(f"conv-matmul,{prune},sparse-int8,settle-layout")).run(model)
    assert len(next(step.changes for step in report.steps if step.name == "prune")) == pruned
    assert {"SparseMatMulInt8", "SparseMatMulInt8Delta"} & kinds(model).keys()
