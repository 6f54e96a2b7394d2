import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsify.lowering import MAX_NONZEROS
from sparsify.passes.sparse_int8 import SparseInt8
from sparsify.solvers.quantize import quantize
from tests.running import EPS, run, set_constant, sparse


def gemm(w: np.ndarray, c: np.ndarray) -> ir.Model:
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[M,K] x) => (float[M,N] y) <float[1,1] w = {0}, float[1] c = {0}>
        { dense = Identity(w) y = Gemm<alpha=0.5>(x, dense, c) }""")
    set_constant(model, "w", w)
    set_constant(model, "c", c)
    return model


def int8_bound(x: np.ndarray, w: np.ndarray, c: np.ndarray) -> np.ndarray:
    """|Y - (x w + c)| for activations of step s a row and weights of step t a column.

    x and its zero point are each rounded by half a step, so x is off by s at most (and clipping loses no more);
    w is off by t / 2; their product adds s t / 2. A sum of fewer than 2^24 / (255 * 127) products is exact in
    fp32, larger ones round once; the handful of fp32 roundings of scales and bias are 8 eps of what they scale.
    """
    low, high = np.minimum(x.min(axis=1), 0), np.maximum(x.max(axis=1), 0)
    s = ((high - low) / 255)[:, None].astype(np.float64)
    t = quantize(w)[1].astype(np.float64)
    off = s * np.abs(w).sum(axis=0) + np.abs(x).sum(axis=1)[:, None] * t / 2 + len(w) * s * t / 2
    return off + 8 * EPS * (np.abs(x).astype(np.float64) @ np.abs(w) + np.abs(c) + off)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 90), st.integers(1, 30), st.integers(1, 4), st.floats(0, 1), st.integers(0, 2**31))
def test_error_is_what_the_steps_allow(k, n, rows, density, seed):
    rng = np.random.default_rng(seed)
    w, c = sparse(rng, k, n, density), rng.standard_normal(n).astype(np.float32)
    x = (rng.standard_normal((rows, k)) * rng.uniform(0.1, 10, (rows, 1))).astype(np.float32)
    model = gemm(w, c)
    assert SparseInt8()(model).modified
    got = run(model, x=x)[0]
    expected = x.astype(np.float64) @ (0.5 * w) + c
    assert got.shape == (rows, n)
    assert (np.abs(got - expected) <= int8_bound(x, (0.5 * w).astype(np.float32), c)).all()


def test_reports_and_removes_what_fed_the_weight(rng):
    model = gemm(sparse(rng, 64, 32, 0.25), np.zeros(32, np.float32))
    change = SparseInt8()(model).changes[0]
    assert change.facts["format"] == "sparse-int8"
    assert change.facts["encoding"] == "bitmask"
    assert [n.op_type for n in model.graph] == ["SparseMatMulInt8"]
    assert "w" not in model.graph.initializers


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_refuses_what_is_not_finite(bad):
    w = np.zeros((8, 4), np.float32)
    w[1, 1] = bad
    report = SparseInt8()(gemm(w, np.zeros(4, np.float32)))
    assert not report.modified
    assert "NaN or an infinity" in report.refusals[0].reason


def test_refuses_sums_that_could_overflow():
    assert MAX_NONZEROS * 255 * 127 < 2**31 <= (MAX_NONZEROS + 1) * 255 * 127
    w = np.zeros((MAX_NONZEROS + 2, 2), np.float32)
    w[: MAX_NONZEROS + 1, 1] = 1
    assert "int32" in SparseInt8()(gemm(w, np.zeros(2, np.float32))).refusals[0].reason
    w[0, 1] = 0
    assert SparseInt8()(gemm(w, np.zeros(2, np.float32))).modified


def test_min_sparsity():
    w = np.ones((8, 4), np.float32)
    assert SparseInt8()(gemm(w, np.zeros(4, np.float32))).modified
    assert not SparseInt8(min_sparsity=0.1)(gemm(w, np.zeros(4, np.float32))).modified


def test_three_dimensional_activations_in_a_subgraph(rng):
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (bool c, float[2,3,8] x) => (float[2,3,4] y) <float[1,1] w = {0}> { y = If(c) <
            then_branch = t () => (float[2,3,4] a) { a = MatMul(x, w) },
            else_branch = e () => (float[2,3,4] b) { q = MatMul(x, w) b = Neg(q) }> }""")
    w, x = sparse(rng, 8, 4), rng.standard_normal((2, 3, 8)).astype(np.float32)
    set_constant(model, "w", w)
    assert len(SparseInt8()(model).changes) == 2
    bound = int8_bound(x.reshape(6, 8), w, np.zeros(4, np.float32)).reshape(2, 3, 4)
    for flag, sign in ((True, 1), (False, -1)):
        got = run(model, c=np.array(flag), x=x)[0]
        assert (np.abs(got - sign * (x @ w)) <= bound).all()


def test_the_other_name_of_the_onnx_domain(rng):
    model = gemm(sparse(rng, 8, 4), np.zeros(4, np.float32))
    model.opset_imports["ai.onnx"] = model.opset_imports.pop("")
    assert SparseInt8()(model).modified
    assert run(model, x=np.zeros((1, 8), np.float32))[0].tolist() == [[0, 0, 0, 0]]
