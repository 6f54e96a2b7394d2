"""Attribution on chains whose drift is known by hand."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest

from sparsify.audit import LayerDrift
from sparsify.audit.attribution import MEMORY, Attribution, drift_of_layers

HEAD = '<ir_version: 8, opset_import: ["" : 17, "local" : 1]>\n'
CHAIN = (
    HEAD
    + """chain (float[N,2] x) => (float[N,2] y)
<float two = {2}, float[2,2] w = {1, 2, 3, 4}, float three = {3}>
{ a = Mul(x, two)
  b = MatMul(a, w)
  y = Mul(b, three) }"""
)
X = np.array([[1, 2], [-3, 4]], np.float32)


def attribution(base: str, candidate: str, memory: int = MEMORY, x: np.ndarray = X, **options) -> Attribution:
    models = [ir.from_onnx_text(text) for text in (base, candidate)]
    for node in (n for m in models for n in m.graph if [v.name for v in (*n.inputs, *n.outputs)] == ["a", "w", "b"]):
        node.name = "middle"  # the text of onnx 1.16 knows no names
    before = [ir.to_proto(m).SerializeToString(deterministic=True) for m in models]
    feeds = [{"x": x[:1]}, {"x": x[1:]}]
    found = drift_of_layers(*models, feeds, threads=1, native=True, memory=memory, **options)
    assert [ir.to_proto(m).SerializeToString(deterministic=True) for m in models] == before
    return found


def drift(base: str, candidate: str, memory: int = MEMORY, x: np.ndarray = X) -> dict[str, LayerDrift]:
    return {row.value: row for row in attribution(base, candidate, memory, x).rows}


def figures(found: dict[str, LayerDrift]) -> dict[str, tuple[str, str, float, float]]:
    return {value: (row.node, row.op, row.own, row.accumulated) for value, row in found.items()}


@pytest.mark.parametrize("memory", [1, MEMORY])
def test_a_node_answers_for_its_own_error_only(memory: int):
    candidate = CHAIN.replace("two = {2}", "two = {2.5}").replace("three = {3}", "three = {1.5}")
    found = drift(CHAIN, candidate, memory)
    # Factors 5/4 and 1/2, exact in float32: relative errors 1/4 and 1/2 alone, 5/4 * 1/2 - 1 = -3/8 together.
    assert figures(found) == {
        "a": ("Mul -> a", "Mul", 0.25, 0.25),
        "b": ("middle", "MatMul", 0.0, 0.25),
        "y": ("Mul -> y", "Mul", 0.5, 0.375),
    }
    assert [row.share for row in found.values()] == [0.2, 0.0, 0.8]  # 1/16 and 1/4 of 5/16
    assert [row.effect for row in found.values()] == [0.25, None, 0.5]  # all that follows is linear


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
    assert figures(worse)["y"] == ("MatMul -> y", "MatMul", 1.0, 1.0)
    assert worse["y"].base_nodes == ("middle", "Mul -> y")
    assert worse["y"].nodes == ("MatMul -> y",)


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


def test_the_first_layer_over_the_threshold_is_named():
    candidate = CHAIN.replace("w = {1, 2, 3, 4}", "w = {1, 2, 3, 5}")
    found = attribution(CHAIN, candidate, threshold=0.01)
    assert found.first is not None
    assert found.first.node == "middle"
    assert found.to_dict()["first"] == "middle"
    assert attribution(CHAIN, candidate, threshold=10.0).first is None


def test_what_nobody_downstream_looks_at_has_no_effect():
    text = (
        HEAD
        + """masked (float[N,2] x) => (float[N,2] y)
    <float k = {FACTOR}, float big = {1e6}, float one = {1}, float w = {SMALL}>
    { far = Mul(x, k)
      cut = Clip(far, one, one)
      s = Mul(x, w)
      y = Mul(s, cut) }"""
    )
    base = text.replace("FACTOR", "1").replace("SMALL", "1")
    found = attribution(base, text.replace("FACTOR", "1000").replace("SMALL", "1.25"))
    rows = {row.value: row for row in found.rows}
    assert rows["far"].own == 999.0
    assert rows["far"].effect == 0.0
    assert [row.value for row in found.suspects] == ["s", "far"]


def test_feeds_too_large_for_the_memory_run_in_parts():
    candidate = CHAIN.replace("three = {3}", "three = {4.5}")
    x = np.tile(X, (8, 1))
    whole, parts = attribution(CHAIN, candidate, x=x), attribution(CHAIN, candidate, memory=8 * 3 * 8, x=x)
    assert figures({r.value: r for r in whole.rows}) == figures({r.value: r for r in parts.rows})
    assert not whole.notes
    assert parts.notes == ("layers were measured in batches of 3, so that their values fit the memory",)


def test_a_candidate_of_half_precision_is_compared_with_its_base():
    half = (
        HEAD
        + """chain (float[N,2] x) => (float[N,2] y)
    <float two = {2}, float[2,2] w = {1, 2, 3, 4}, float three = {3}>
    { h = Cast<to = 10>(x)
      half_two = Cast<to = 10>(two)
      half_w = Cast<to = 10>(w)
      a = Mul(h, half_two)
      b = MatMul(a, half_w)
      c = Cast<to = 1>(b)
      y = Mul(c, three) }"""
    )
    assert figures(drift(CHAIN, half)) == {
        "a": ("Mul -> a", "Mul", 0.0, 0.0),
        "b": ("MatMul -> b", "MatMul", 0.0, 0.0),
        "y": ("Mul -> y", "Mul", 0.0, 0.0),
    }
