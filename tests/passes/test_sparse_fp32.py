import itertools
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsify import ops
from sparsify.passes.sparse_fp32 import SparseFp32
from tests.running import difference_bound, op_types, run, set_constant, sparse


def matmul(w: np.ndarray, x: str = "M,K", name: str = "") -> ir.Model:
    model = ir.from_onnx_text(f"""<ir_version: 7, opset_import: ["" : 13]>
        g (float[{x}] x) => (float[{x[: x.rindex(",")]},N] y) <float[1,1] w = {{0}}> {{ {name} y = MatMul(x, w) }}""")
    set_constant(model, "w", w)
    return model


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 70), st.integers(2, 40), st.integers(0, 5), st.sampled_from([0.0, 0.05, 0.5]), st.integers(0, 2**31)
)
def test_computes_the_same(k, n, rows, density, seed):
    rng = np.random.default_rng(seed)
    w = sparse(rng, k, n, density)
    x = rng.standard_normal((rows, k)).astype(np.float32)
    model = matmul(w)
    expected = run(model, x=x)[0]
    report = SparseFp32(min_sparsity=0)(model)
    assert report.modified
    assert (np.abs(run(model, x=x)[0] - expected) <= difference_bound(x, w)).all()


@pytest.mark.parametrize(("density", "operator"), [(0.4, "SparseMatMul"), (0.03, "SparseMatMulDelta")])
def test_three_dimensional_activations_and_what_is_kept(rng, density, operator):
    w = sparse(rng, 64, 48, density)
    x = rng.standard_normal((2, 5, 64)).astype(np.float32)
    model = matmul(w, "B,S,64")
    node, rows = model.graph[0], 10
    node.meta["rows"] = rows
    before, shape = run(model, x=x)[0], model.graph.outputs[0].shape
    report = SparseFp32()(model)
    new = model.graph[0]
    assert (np.abs(run(model, x=x)[0] - before) <= difference_bound(x, w)).all()
    assert (new.op_type, new.domain, new.name, new.meta["rows"]) == (operator, ops.DOMAIN, "MatMul -> y", rows)
    assert (model.graph.outputs[0].name, model.graph.outputs[0].shape) == ("y", shape)
    assert "w" not in model.graph.initializers
    facts = report.changes[0].facts
    assert facts["shape"] == [64, 48]
    assert facts["bytes_after"] < facts["bytes_before"] == w.nbytes
    assert facts["sparsity"] == pytest.approx(1 - np.count_nonzero(w) / w.size)


_C = {
    "": None,
    "float[6] c": (6,),
    "float[1,6] c": (1, 6),
    "float c": (),
    "float[3,6] c": (3, 6),
    "float[3,1] c": (3, 1),
}


@pytest.mark.parametrize(
    ("transa", "transb", "c", "fed"),
    [(a, b, c, f) for a, b, c, f in itertools.product((0, 1), (0, 1), _C, (False, True)) if c or not f],
)
def test_every_gemm(rng, transa, transb, c, fed):
    alpha, beta = 0.75, -1.5
    w, x = sparse(rng, 9, 6), rng.standard_normal((3, 9)).astype(np.float32)
    bias = None if _C[c] is None else rng.standard_normal(_C[c]).astype(np.float32)
    inputs = [f"float[{'9,3' if transa else '3,9'}] x", *([c] if fed else [])]
    constants = ["float[1,1] w = {0}", *(["float[1] c = {0}"] if c and not fed else [])]
    model = ir.from_onnx_text(f"""<ir_version: 8, opset_import: ["" : 17]>
        g ({", ".join(inputs)}) => (float[3,6] y) <{", ".join(constants)}> {{
        y = Gemm<alpha={alpha}, beta={beta}, transA={transa}, transB={transb}>(x, w{", c" if c else ""}) }}""")
    set_constant(model, "w", w.T.copy() if transb else w)
    feed = {"x": x.T.copy() if transa else x}
    if fed:
        feed["c"] = bias
    elif c:
        set_constant(model, "c", bias)
    expected = run(model, **feed)[0]
    assert SparseFp32(min_sparsity=0)(model).modified
    bound = difference_bound(x, alpha * w, *([] if bias is None else [beta * bias]))
    assert (np.abs(run(model, **feed)[0] - expected) <= bound).all()
    assert "Gemm" not in op_types(model)
    folded = not fed and (bias is None or bias.shape[:1] != (3,))
    assert ("Add" in op_types(model)) is not folded


def test_shared_weights_are_stored_once_and_go_when_unused(rng):
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[M,8] x) => (float[M,8] y, float[M,8] z, float[8,8] u) <float[1,1] w = {0}>
        { a = MatMul(x, w) y = MatMul(a, w) z = Gemm<transB=1>(x, w) u = Identity(w) }"""
    )
    w, x = sparse(rng, 8, 8), rng.standard_normal((2, 8)).astype(np.float32)
    set_constant(model, "w", w)
    expected = run(model, x=x)
    report = SparseFp32(min_sparsity=0)(model)
    assert len(report.changes) == 3
    first, second, third = list(model.graph)[:3]
    assert first.inputs[1:4] == second.inputs[1:4]
    assert first.inputs[2] is not third.inputs[2]
    assert "w" in model.graph.initializers  # Identity still reads it
    got = run(model, x=x)
    bound = difference_bound(x, w) @ np.abs(w) + difference_bound(np.abs(x @ w), w)  # a's error, then y's own
    assert (np.abs(got[0] - expected[0]) <= bound).all()
    assert (np.abs(got[1] - expected[1]) <= difference_bound(x, w.T)).all()


def test_rewrites_inside_subgraphs(rng):
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (bool c, float[3,8] x) => (float[3,4] y) <float[1,1] w = {0}> { y = If(c) <
            then_branch = t () => (float[3,4] a) { a = MatMul(x, w) },
            else_branch = e () => (float[3,4] b) <float[1,1] v = {0}> { p = MatMul(x, v) b = Neg(p) }> }""")
    w, v = sparse(rng, 8, 4), sparse(rng, 8, 4)
    x = rng.standard_normal((3, 8)).astype(np.float32)
    set_constant(model, "w", w)
    set_constant(model, "v", v)
    assert len(SparseFp32(min_sparsity=0)(model).changes) == 2
    assert "MatMul" not in op_types(model)
    for flag, matrix, sign in ((True, w, 1), (False, v, -1)):
        got = run(model, c=np.array(flag), x=x)[0]
        assert (np.abs(got - sign * (x @ matrix)) <= difference_bound(x, matrix)).all()


def test_refuses_with_reasons(rng):
    model = matmul(np.ones((8, 4), np.float32))
    report = SparseFp32()(model)
    assert not report.modified
    assert "0% sparse, less than the 50%" in report.refusals[0].reason
    model = matmul(sparse(rng, 8, 4, 0.1))
    model.opset_imports[""] = model.graph.opset_imports[""] = 9
    assert "opset 9 is below 11" in SparseFp32()(model).refusals[0].reason


def test_functions_of_the_model_are_refused_and_ours_not_mentioned(rng):
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 17, "f" : 1]>
        g (float[3,8] x) => (float[3,8] y) <float[1,1] w = {0}> { a = f.dense(x, w) y = MatMul(a, w) }
        <domain: "f", opset_import: ["" : 17]> dense (x, w) => (y) { y = MatMul(x, w) }"""
    )
    set_constant(model, "w", sparse(rng, 8, 8, 0.2))
    report = SparseFp32()(model)
    assert [r.reason for r in report.refusals] == ["inside the function `dense`"]
    assert len(report.changes) == 1
    assert [r.reason for r in SparseFp32()(model).refusals] == ["inside the function `dense`"]


@dataclass(frozen=True)
class FakeCost:
    dense_ms: float
    rewritten_ms: float

    @property
    def speedup(self) -> float:
        return self.dense_ms / self.rewritten_ms


def test_what_does_not_pay_is_refused_with_both_times(rng, monkeypatch):
    cost = pytest.importorskip("sparsify.cost")
    asked = {}

    def measure(matrix, arrays, operator, *, rows, threads, zeros, window):
        asked.update(shape=matrix.shape, rows=rows, threads=threads, inputs=list(arrays), operator=operator.name)
        return FakeCost(2.0, 1.6)

    monkeypatch.setattr(cost, "measure", measure)
    w = sparse(rng, 64, 16, 0.4)
    model = matmul(w)
    model.graph[0].meta["rows"] = 7
    report = SparseFp32(min_speedup=1.5, threads=2)(model)
    refusal = report.refusals[0]
    assert not report.modified
    assert "1.600 ms against 2.000 ms dense at 7 rows: 1.25x, less than the 1.5x" in refusal.reason
    needed = 1 - np.count_nonzero(w) / w.size * 2.0 / (1.6 * 1.5)
    assert f"more than {needed:.0%} sparse" in refusal.reason
    assert (refusal.facts["dense_ms"], refusal.facts["rewritten_ms"]) == (2.0, 1.6)
    assert asked == {
        "shape": (64, 16),
        "rows": 7,
        "threads": 2,
        "inputs": ["positions", "values", "shape", "bias"],
        "operator": "SparseMatMul",
    }
    assert SparseFp32(min_speedup=1.2)(model).changes[0].facts["speedup"] == 1.25


def test_a_layer_reads_what_took_the_place_of_the_layer_before_it():
    """Found by tests/fuzz: it read the old value, of the same name, and later passes did not see that."""
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[M,2] x) => (float[M,2] y, float[M,2] z) <float[2,2] w = {1, 0, 0, 2}, float[2] b = {1, 2}>
        { h = MatMul(x, w) y = Add(h, b) z = MatMul(h, w) }""")
    SparseFp32(min_sparsity=0.0)(model)
    first, _, second = model.graph
    assert second.inputs[0] is first.outputs[0]
    assert len(first.outputs[0].uses()) == 2
