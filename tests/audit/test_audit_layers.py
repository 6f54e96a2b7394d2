"""Attribution on chains whose drift is known by hand."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest

from sparsify.audit import LayerDrift
from sparsify.audit.layers import CHUNK_BYTES, drift_of_layers

HEAD = '<ir_version: 8, opset_import: ["" : 17, "local" : 1]>\n'
CHAIN = (
    HEAD
    + """chain (float[N,2] x) => (float[N,2] y)
<float two = {2}, float[2,2] w = {1, 2, 3, 4}, float three = {3}>
{ a = Mul(x, two)
  [middle] b = MatMul(a, w)
  y = Mul(b, three) }"""
)
X = np.array([[1, 2], [-3, 4]], np.float32)


def drift(base: str, candidate: str, chunk_bytes: int = CHUNK_BYTES, x: np.ndarray = X) -> dict[str, LayerDrift]:
    models = [ir.from_onnx_text(text) for text in (base, candidate)]
    before = [ir.to_proto(m).SerializeToString(deterministic=True) for m in models]
    feeds = [{"x": x[:1]}, {"x": x[1:]}]
    found = drift_of_layers(*models, feeds, threads=1, native=True, chunk_bytes=chunk_bytes)
    assert [ir.to_proto(m).SerializeToString(deterministic=True) for m in models] == before
    return {row.value: row for row in found}


@pytest.mark.parametrize("chunk_bytes", [1, CHUNK_BYTES])
def test_a_node_answers_for_its_own_error_only(chunk_bytes: int):
    candidate = CHAIN.replace("two = {2}", "two = {2.5}").replace("three = {3}", "three = {1.5}")
    found = drift(CHAIN, candidate, chunk_bytes)
    # Factors 5/4 and 1/2, exact in float32: relative errors 1/4 and 1/2 alone, 5/4 * 1/2 - 1 = -3/8 together.
    assert found == {
        "a": LayerDrift("Mul -> a", "Mul", "a", 0.25, 0.25),
        "b": LayerDrift("middle", "MatMul", "b", 0.0, 0.25),
        "y": LayerDrift("Mul -> y", "Mul", "y", 0.5, 0.375),
    }


def test_relative_error_is_pooled_over_feeds():
    candidate = CHAIN.replace("w = {1, 2, 3, 4}", "w = {1, 2, 3, 5}")
    found = drift(CHAIN, candidate)
    b, d = 2 * X.astype(float) @ [[1, 2], [3, 4]], 2 * X.astype(float) @ [[0, 0], [0, 1]]
    expected = math.sqrt((d**2).sum() / (b**2).sum())
    assert found["b"].own == pytest.approx(expected, rel=1e-12)  # small integers: only the root is rounded
    assert found["y"].own == 0
    assert found["y"].accumulated == pytest.approx(expected, rel=1e-12)


def test_a_fused_node_answers_for_the_nodes_it_replaced():
    fused = (
        HEAD
        + """chain (float[N,2] x) => (float[N,2] y)
    <float two = {2}, float[2,2] w = {3, 6, 9, 12}>
    { a = Mul(x, two)
      y = MatMul(a, w) }"""
    )
    assert drift(CHAIN, fused).keys() == {"a", "y"}
    assert drift(CHAIN, fused)["y"].own == 0
    worse = drift(CHAIN, fused.replace("{3, 6, 9, 12}", "{6, 12, 18, 24}"))
    assert worse["y"] == LayerDrift("MatMul -> y", "MatMul", "y", 1.0, 1.0)


def test_values_of_another_shape_are_no_place_to_cut():
    wider = (
        HEAD
        + """chain (float[N,2] x) => (float[N,2] y)
    <float two = {2}, float[2,3] v = {1, 0, 0, 0, 1, 0}, float[3,2] w = {3, 6, 9, 12, 0, 0}>
    { a = Mul(x, two)
      b = MatMul(a, v)
      y = MatMul(b, w) }"""
    )
    found = drift(CHAIN, wider)
    assert found.keys() == {"a", "y"}
    assert found["y"].own == 0


def test_subgraphs_and_functions_count_with_the_node_that_holds_them():
    text = (
        HEAD
        + """control (float[N,2] x) => (float[N,2] y)
    <float k = {FACTOR}, float zero = {0}, float one = {1}>
    { a = Mul(x, one)
      s = ReduceSum<keepdims = 0>(a)
      yes = Greater(s, zero)
      c = If(yes) <then_branch = t () => (float[N,2] p) { p = Mul(a, k) },
                  else_branch = e () => (float[N,2] q) { q = Neg(a) }>
      y = local.Twice(c) }
    <domain: "local", opset_import: ["" : 17]> Twice (v) => (r) { r = Add(v, v) }"""
    )
    found = drift(text.replace("FACTOR", "2"), text.replace("FACTOR", "3"))
    # Sums of the rows are 3 and 1: the branch that multiplies.
    assert (found["c"].own, found["c"].accumulated) == (0.5, 0.5)
    assert (found["y"].own, found["y"].accumulated) == (0.0, 0.5)
    assert found["y"].op == "local.Twice"
    assert "yes" not in found  # not a float


def test_nodes_of_several_outputs_have_one_row():
    text = (
        HEAD
        + """split (float[N,2] x) => (float[N,2] y)
    <float k = {FACTOR}>
    { m = Mul(x, k)
      l, r = Split<axis = 1>(m)
      y = Concat<axis = 1>(r, l) }"""
    )
    found = drift(text.replace("FACTOR", "1"), text.replace("FACTOR", "2"))
    assert found.keys() == {"m", "l", "y"}
    assert (found["l"].own, found["l"].accumulated) == (0.0, 1.0)
    assert (found["y"].own, found["y"].accumulated) == (0.0, 1.0)


def test_constants_have_no_rows():
    text = (
        HEAD
        + """constant (float[N,2] x) => (float[N,2] y)
    { c = Constant<value = float {2}>()
      k = Neg(c)
      y = Mul(x, k) }"""
    )
    assert drift(text, text).keys() == {"y"}


def test_infinities_that_are_equal_do_not_count():
    text = (
        HEAD
        + """mask (float[N,2] x) => (float[N,2] y)
    <float zero = {0}>
    { m = Div(x, zero)
      y = Softmax(m) }"""
    )
    found = drift(text, text, x=np.array([[1, -1], [2, -2]], np.float32))  # inf and -inf, then NaN
    assert [(r.own, r.accumulated) for r in found.values()] == [(0.0, 0.0), (0.0, 0.0)]


def test_new_infinities_are_infinite_drift():
    text = (
        HEAD
        + """broken (float[N,2] x) => (float[N,2] y)
    <float k = {FACTOR}>
    { y = Div(x, k) }"""
    )
    assert drift(text.replace("FACTOR", "1"), text.replace("FACTOR", "0"))["y"].own == math.inf
