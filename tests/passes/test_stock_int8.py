import collections

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from sparsify.passes.stock_int8 import StockInt8
from sparsify.solvers.quantize import quantize
from tests.running import EPS, op_types, run, set_constant


def model_of(
    rng, body: str, inputs: str = "float[M,32] x", outputs: str = "float[M,16] y"
) -> tuple[ir.Model, np.ndarray]:
    model = ir.from_onnx_text(f"""<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs})
        <float[1,1] w = {{0}}, float[1] c = {{0}}> {{ {body} }}""")
    w = rng.standard_normal((32, 16)).astype(np.float32)
    set_constant(model, "w", w)
    set_constant(model, "c", rng.standard_normal(16).astype(np.float32))
    return model, w


def int8_bound(x: np.ndarray, w: np.ndarray, levels: int = 127) -> np.ndarray:
    """One step s for all of x, so x is off by s at most (half for rounding it, half for its zero point); w by t / 2.

    Sums of a few dozen products are exact in int32 and in fp32; a handful of roundings of scales remain.
    """
    s = (max(x.max(), 0) - min(x.min(), 0)) / 255
    t = quantize(w, levels)[1].astype(np.float64)
    off = s * np.abs(w).sum(axis=0) + np.abs(x).sum(axis=-1)[..., None] * t / 2 + len(w) * s * t / 2
    return off + 8 * EPS * (np.abs(x) @ np.abs(w) + off + 10)


@pytest.mark.parametrize("reduce_range", [False, True])
def test_error_is_what_the_steps_allow(rng, reduce_range):
    model, w = model_of(rng, "y = MatMul(x, w)", "float[B,M,32] x", "float[B,M,16] y")
    x = rng.standard_normal((2, 3, 32)).astype(np.float32)
    report = StockInt8(reduce_range=reduce_range)(model)
    assert report.changes[0].facts["bytes_after"] == 32 * 16 + 16 * 4
    got = run(model, x=x)[0]
    # On a CPU without VNNI pairs of products may saturate, unless weights have 7 bits: then 2*255*63 < 2^15.
    if reduce_range or _exact_int8():
        assert (np.abs(got - x @ w) <= int8_bound(x, w, 63 if reduce_range else 127)).all()


def _exact_int8() -> bool:
    """Whether onnxruntime's u8 * s8 products do not saturate on this CPU."""
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]> g (uint8[1,64] x) => (int32[1,16] y)
        <int8[1,1] w = {0}> { y = MatMulInteger(x, w) }""")
    set_constant(model, "w", np.full((64, 16), 127, np.int8))
    return bool((run(model, x=np.full((1, 64), 255, np.uint8))[0] == 64 * 127 * 255).all())


@pytest.mark.parametrize(("transa", "transb", "beta"), [(0, 0, 1.0), (1, 0, 2.0), (0, 1, 0.0), (1, 1, 1.0)])
def test_gemm(rng, transa, transb, beta):
    model, w = model_of(
        rng,
        f"y = Gemm<alpha=0.5, beta={beta}, transA={transa}, transB={transb}>(x, w, c)",
        "float[32,3] x" if transa else "float[3,32] x",
        "float[3,16] y",
    )
    if transb:
        set_constant(model, "w", w.T.copy())
    c = model.graph.initializers["c"].const_value.numpy()
    x = rng.standard_normal((3, 32)).astype(np.float32)
    assert StockInt8(reduce_range=True)(model).modified
    got = run(model, x=x.T.copy() if transa else x)[0]
    half = (0.5 * w).astype(np.float32)
    assert (np.abs(got - (x @ half + beta * c)) <= int8_bound(x, half, 63)).all()
    assert "w" not in model.graph.initializers


def test_an_input_and_its_transpose_are_quantised_apart(rng):
    body = "a = MatMul(x, w) b = Gemm<transA=1>(x, w) y = Sub(a, b)"
    model, w = model_of(rng, body, "float[32,32] x", "float[32,16] y")
    x = rng.standard_normal((32, 32)).astype(np.float32)
    assert len(StockInt8(reduce_range=True)(model).changes) == 2
    got = run(model, x=x)[0]
    assert (np.abs(got - (x - x.T) @ w) <= int8_bound(x, w, 63) + int8_bound(x.T, w, 63)).all()


def test_onnxruntime_fuses_it(rng, tmp_path):
    body = "a = MatMul(x, w) b = Add(c, a) d = Relu(b) e = Gemm<transB=1>(d, w) f = Gemm<alpha=2.0>(x, w) y = Add(f, b)"
    model, _ = model_of(rng, body, outputs="float[M,16] y, float[M,32] e")
    assert len(StockInt8()(model).changes) == 3
    assert collections.Counter(op_types(model))["DynamicQuantizeLinear"] == 2  # x is quantised once
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = collections.Counter(n.op_type for n in ir.load(tmp_path / "optimized.onnx").graph)
    assert found["DynamicQuantizeMatMul"] + found["MatMulIntegerToFloat"] == 3
    assert found["MatMulInteger"] == 0


def test_inside_a_subgraph(rng):
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (bool k, float[3,32] x) => (float[3,16] y) <float[1,1] w = {0}> { q = MatMul(x, w) y = If(k) <
            then_branch = t () => (float[3,16] a) { a = MatMul(x, w) },
            else_branch = e () => (float[3,16] b) { b = Neg(q) }> }""")
    w, x = (rng.standard_normal(s).astype(np.float32) for s in ((32, 16), (3, 32)))
    set_constant(model, "w", w)
    assert len(StockInt8(reduce_range=True)(model).changes) == 2
    for flag, sign in ((True, 1), (False, -1)):
        got = run(model, k=np.array(flag), x=x)[0]
        assert (np.abs(got - sign * (x @ w)) <= int8_bound(x, w, 63)).all()


def test_refuses_what_is_not_finite(rng):
    model, w = model_of(rng, "y = MatMul(x, w)")
    w[0, 0] = np.nan
    report = StockInt8()(model)
    assert not report.modified
    assert "NaN" in report.refusals[0].reason
