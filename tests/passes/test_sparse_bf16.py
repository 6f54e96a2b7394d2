import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16

from sparsify.passes.fuse_epilogue import FuseEpilogue
from sparsify.passes.sparse_bf16 import SparseBf16
from tests.references import U
from tests.running import op_types, run, set_constant, sparse


def gemm(w: np.ndarray, c: np.ndarray, opset: int = 17) -> ir.Model:
    model = ir.from_onnx_text(f"""<ir_version: 8, opset_import: ["" : {opset}]>
        g (float[M,K] x) => (float[M,N] y) <float[1,1] w = {{0}}, float[1] c = {{0}}>
        {{ y = Gemm<alpha=0.75>(x, w, c) }}""")
    set_constant(model, "w", w)
    set_constant(model, "c", c)
    return model


def bf16_bound(x: np.ndarray, w: np.ndarray, c: np.ndarray) -> np.ndarray:
    """|Y - (x w + c)| in bfloat16, which has 8 significant bits: each operand is off by at most 2^-8 of itself.

    (1 + 2^-8)^2 - 1 = 2^-7 + 2^-16; the K + 1 sums and alpha round in fp32, of products up to (1 + 2^-7 + 2^-16) |x w|.
    """
    size = np.abs(x).astype(np.float64) @ np.abs(w)
    operands = 2**-7 + 2**-16
    return operands * size + (len(w) + 2) * 2 * U * ((1 + operands) * size + np.abs(c))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 90), st.integers(1, 30), st.integers(1, 4), st.floats(0, 1), st.integers(0, 2**31))
def test_error_is_what_eight_bits_allow(k, n, rows, density, seed):
    rng = np.random.default_rng(seed)
    w, c = sparse(rng, k, n, density), rng.standard_normal(n).astype(np.float32)
    x = (rng.standard_normal((rows, k)) * rng.uniform(0.1, 10, (rows, 1))).astype(np.float32)
    model = gemm(w, c)
    assert SparseBf16()(model).modified
    got = run(model, x=x)[0]
    assert got.shape == (rows, n)
    assert (np.abs(got - (x.astype(np.float64) @ (0.75 * w) + c)) <= bf16_bound(x, 0.75 * w, c)).all()


@pytest.mark.parametrize(("density", "name"), [(0.3, "SparseMatMulBf16"), (0.03, "SparseMatMulBf16Delta")])
def test_reports_what_it_did(rng, density, name):
    w = sparse(rng, 64, 32, density)
    model = gemm(w, np.zeros(32, np.float32))
    facts = SparseBf16()(model).changes[0].facts
    assert op_types(model) == [name]
    assert facts["format"] == "sparse-bf16"
    assert facts["encoding"] == ("delta" if name.endswith("Delta") else "bitmask")
    per_value = 3 if name.endswith("Delta") else 2
    assert facts["bytes_after"] == np.count_nonzero(w) * per_value + (0 if per_value == 3 else w.size // 8)


def test_is_the_same_once_saved_and_read_back(rng, tmp_path):
    w, x = sparse(rng, 64, 32), rng.standard_normal((3, 64)).astype(np.float32)
    model = gemm(w, np.zeros(32, np.float32))
    SparseBf16()(model)
    expected = run(model, x=x)[0]
    ir.save(model, tmp_path / "m.onnx", external_data="m.data", size_threshold_bytes=0)
    again = ir.load(tmp_path / "m.onnx")
    assert again.graph[0].inputs[2].dtype is ir.DataType.BFLOAT16
    assert np.array_equal(run(ir.from_proto(ir.to_proto(_inside(again))), x=x)[0], expected)


def _inside(model: ir.Model) -> ir.Model:
    for value in model.graph.initializers.values():
        value.const_value = ir.tensor(value.const_value.numpy().copy(), name=value.name)
    return model


def test_the_epilogue_is_fused(rng):
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[M,K] x) => (float[M,N] y) <float[1,1] w = {0}, float[1] c = {0}>
        { p = MatMul(x, w) s = Add(p, c) y = Relu(s) }""")
    w, c = sparse(rng, 40, 20), rng.standard_normal(20).astype(np.float32)
    x = rng.standard_normal((5, 40)).astype(np.float32)
    set_constant(model, "w", w)
    set_constant(model, "c", c)
    SparseBf16()(model)
    expected = run(model, x=x)[0]
    assert FuseEpilogue()(model).modified
    assert op_types(model) == ["SparseMatMulBf16Relu"]
    # The same products, with the bias as one more term of the same sum.
    exact = x.astype(bfloat16).astype(np.float64), w.astype(bfloat16).astype(np.float64)
    bound = (len(w) + 2) * 2 * U * (np.abs(exact[0]) @ np.abs(exact[1]) + np.abs(c))
    assert (np.abs(run(model, x=x)[0] - expected) <= bound).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, np.finfo(np.float32).max])
def test_refuses_what_bfloat16_cannot_hold(bad):
    w = np.zeros((8, 4), np.float32)
    w[1, 1] = bad
    model = gemm(w, np.zeros(4, np.float32))
    model.graph[0].attributes.pop("alpha")
    report = SparseBf16()(model)
    assert not report.modified
    assert "a NaN, an infinity or a number beyond 3.39e+38" in report.refusals[0].reason


def test_refuses_sparsity_and_opsets_that_are_too_low(rng):
    w, c = sparse(rng, 8, 4, 0.5), np.zeros(4, np.float32)
    assert "less than the 100% asked for" in SparseBf16(min_sparsity=1)(gemm(w, c)).refusals[0].reason
    assert "opset 12 is below 13" in SparseBf16()(gemm(w, c, opset=12)).refusals[0].reason
