import numpy as np
import onnx
import onnx_ir as ir
import pytest
from scipy.special import expit

from sparsify import ops
from sparsify.activations import gelu, gelu_tanh, silu
from sparsify.passes.fuse_epilogue import FuseEpilogue
from sparsify.passes.sparse_fp32 import SparseFp32
from tests.running import EPS, difference_bound, op_types, run, set_constant, sparse
from tests.test_activations import GELUS, SILUS, TANH_GELUS


def model_of(rng, body: str, outputs: str = "float[M,6] y", opset: int = 17) -> tuple[ir.Model, np.ndarray]:
    model = ir.from_onnx_text(f"""<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]>
        g (float[M,8] a, float[M,6] other, float[R,6] row) => ({outputs}) <float[1,1] w = {{0}},
        float[6] c = {{1,2,3,4,5,-6}},
        float[1,6] c2 = {{1,2,3,4,5,-6}}, float[1,1,6] c3 = {{1,2,3,4,5,-6}}, float c0 = {{2}},
        float root = {{1.4142135}}, float inverse = {{0.70710677}}, float one = {{1}},
        float half = {{0.5}}, float two = {{2}}, float three = {{3}}, float cubic = {{0.044715}},
        float factor = {{0.79788458}}> {{ {body} }}""")
    w = sparse(rng, 8, 6, 0.4)
    set_constant(model, "w", w)
    SparseFp32(min_sparsity=0)(model)
    return model, w


def check(model: ir.Model, w: np.ndarray, rng, f, c) -> None:
    """The model computes f(x w + c); no Lipschitz constant is over 1.13."""
    x = rng.standard_normal((3, 8)).astype(np.float32)
    got = run(model, a=x, other=np.zeros((3, 6), np.float32), row=np.zeros((1, 6), np.float32))[0]
    before = x.astype(np.float64) @ w + c
    # Erf, tanh and sigmoid of onnxruntime are good to a few ulp of 1, times |x| at most; so are the factors around.
    bound = 1.13 * difference_bound(x, w, np.broadcast_to(c, before.shape)) + 16 * EPS * np.maximum(np.abs(before), 1)
    assert (np.abs(got - f(before)) <= bound).all()


C = np.array([1, 2, 3, 4, 5, -6], np.float32)


@pytest.mark.parametrize("add", ["Add(p, c)", "Add(c, p)", "Add(p, c2)", "Add(p, c0)"])
def test_bias_in_either_order(rng, add):
    model, w = model_of(rng, f"p = MatMul(a, w) y = {add}")
    report = FuseEpilogue()(model)
    assert [c.what for c in report.changes] == ["fused bias"]
    assert op_types(model) == ["SparseMatMul"]
    assert model.graph.outputs[0].name == "y"
    assert model.graph[0].name == "MatMul -> p"
    check(model, w, rng, lambda v: v, 2 if "c0" in add else C)


@pytest.mark.parametrize("bias", [True, False])
def test_relu(rng, bias):
    model, w = model_of(rng, "p = MatMul(a, w) q = Add(c, p) y = Relu(q)" if bias else "p = MatMul(a, w) y = Relu(p)")
    assert FuseEpilogue()(model).changes[0].facts["fused"] == (["bias", "Relu"] if bias else ["Relu"])
    assert op_types(model) == ["SparseMatMulRelu"]
    check(model, w, rng, lambda v: np.maximum(v, 0), C if bias else 0)


@pytest.mark.parametrize("form", [g for g in GELUS if "Gelu" not in g])
def test_gelu_by_erf_in_every_form(rng, form):
    model, w = model_of(rng, f"product = MatMul(a, w) x = Add(c, product) {form}")
    assert FuseEpilogue()(model).changes[0].what == "fused bias and Gelu"
    assert op_types(model) == ["SparseMatMulGelu"]
    assert set(model.graph.initializers).isdisjoint({"c", "w"})
    check(model, w, rng, gelu, C)


@pytest.mark.parametrize("body", ["q = Add(p, c) y = com.microsoft.Gelu(q)", "y = com.microsoft.BiasGelu(p, c)"])
def test_gelu_of_onnxruntime(rng, body):
    model, w = model_of(rng, f"p = MatMul(a, w) {body}")
    assert FuseEpilogue()(model).changes[0].what == "fused bias and Gelu"
    check(model, w, rng, gelu, C)


def test_gemm_has_its_bias_already_and_takes_more(rng):
    model, w = model_of(rng, "p = Gemm(a, w, c) q = Add(p, c) y = Relu(q)")
    assert FuseEpilogue()(model).modified
    check(model, w, rng, lambda v: np.maximum(v, 0), 2 * C)


@pytest.mark.parametrize(
    ("body", "outputs", "reason"),
    [
        ("p = MatMul(a, w) y = Softmax(p)", "float[M,6] y", "followed by Softmax"),
        (
            "p = MatMul(a, w) y = Add(p, row)",
            "float[M,6] y",
            "`row`, whose shape [R, 6] is not known to be that of the",
        ),
        ("p = MatMul(a, w) t = com.microsoft.Gelu(other) y = Add(p, t)", "float[M,6] y", "whose shape [?] is not"),
        ("p = MatMul(a, w) y = Add(p, p)", "float[M,6] y", "2 nodes read its output"),
        ("p = MatMul(a, w) y = Add(p, c3)", "float[B,M,6] y", "followed by Add"),
        ("p = MatMul(a, w) y = Add(p, c)", "float[M,6] y, float[M,6] p", "its output is an output of the model"),
        ("p = MatMul(a, w) q = Add(p, c) y = Mul(p, q)", "float[M,6] y", "2 nodes read its output"),
        ("y = MatMul(a, w)", "float[M,6] y", "its output is an output of the model"),
    ],
)
def test_refuses_what_is_not_its_own(rng, body, outputs, reason):
    model, _ = model_of(rng, body, outputs)
    before = op_types(model)
    report = FuseEpilogue()(model)
    assert not report.modified
    assert op_types(model) == before
    assert reason in report.refusals[0].reason


def test_a_bias_that_is_an_output_is_fused_and_the_activation_not(rng):
    model, w = model_of(rng, "p = MatMul(a, w) y = Add(p, c) z = Relu(y)", "float[M,6] y, float[M,6] z")
    assert FuseEpilogue()(model).changes[0].what == "fused bias"
    assert op_types(model) == ["SparseMatMul", "Relu"]
    check(model, w, rng, lambda v: v, C)


COMPOSED = [*(("GeluTanh", gelu_tanh, b) for b in TANH_GELUS), *(("Silu", silu, b) for b in SILUS)]


@pytest.mark.parametrize(
    ("name", "f", "form"),
    [*COMPOSED, ("Sigmoid", expit, "y = Sigmoid(x)"), ("Tanh", np.tanh, "y = Tanh(x)")],
)
def test_other_activations_in_every_form(rng, name, f, form):
    model, w = model_of(rng, f"p = MatMul(a, w) x = Add(p, c) {form}", opset=20)
    model.ir_version = 9
    assert FuseEpilogue()(model).changes[0].what == f"fused bias and {name}"
    assert op_types(model) == [f"SparseMatMul{name}"]
    check(model, w, rng, f, C)


def test_fast_gelu_of_onnxruntime_with_its_bias(rng):
    model, w = model_of(rng, "p = MatMul(a, w) y = com.microsoft.FastGelu(p, c)")
    assert FuseEpilogue()(model).changes[0].what == "fused bias and GeluTanh"
    check(model, w, rng, gelu_tanh, C)


@pytest.mark.parametrize(
    ("body", "fused"),
    [
        ("p = MatMul(a, w) y = Add(p, other)", "residual"),
        ("p = MatMul(a, w) y = Add(other, p)", "residual"),
        ("p = MatMul(a, w) q = Add(p, c) y = Add(q, other)", "bias and residual"),
        # The residual is computed after the product, and has a shape that only inference tells.
        ("p = MatMul(a, w) q = Add(c, p) n = Neg(other) m = Neg(n) y = Add(m, q)", "bias and residual"),
    ],
)
def test_a_residual(rng, body, fused):
    model, w = model_of(rng, body)
    report = FuseEpilogue()(model)
    assert [c.what for c in report.changes] == [f"fused {fused}"]
    assert op_types(model)[-1] == "SparseMatMulAdd"
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    x, other = (rng.standard_normal((3, n)).astype(np.float32) for n in (8, 6))
    bias = np.broadcast_to(C if "bias" in fused else np.zeros(6, np.float32), other.shape)
    exact = x.astype(np.float64) @ w + bias + other
    bound = difference_bound(x, w, bias) + EPS * np.abs(exact)  # one more sum, rounded once
    got = run(model, a=x, other=other, row=other)[0]
    assert (np.abs(got - exact) <= bound * (1 + EPS)).all()
    again = FuseEpilogue()(model)
    assert not again.modified
    assert "already has a residual" in again.refusals[0].reason


@pytest.mark.parametrize("body", ["t = Relu(p)", "t = Add(p, c)", "t = Add(p, other)"])
def test_what_a_subgraph_does_stays_there(rng, body):
    branches = f"then_branch = th () => (float[M,6] t) {{ {body} }}, "
    branches += "else_branch = el () => (float[M,6] e) { e = Neg(other) }"
    model, _ = model_of(
        rng, f"p = MatMul(a, w) s = ReduceSum<keepdims=0>(other) q = Cast<to=9>(s) y = If(q) <{branches}>"
    )
    report = FuseEpilogue()(model)
    assert not report.modified
    assert "followed by" in report.refusals[0].reason


def test_both_branches_of_a_sum_are_one_operator_and_its_residual(rng):
    model, w = model_of(rng, "p = MatMul(a, w) q = MatMul(a, w) y = Add(p, q)")
    assert FuseEpilogue()(model).changes[0].what == "fused residual"
    assert op_types(model) == ["SparseMatMul", "SparseMatMulAdd"]
    x = rng.standard_normal((3, 8)).astype(np.float32)
    zeros = np.zeros((3, 6), np.float32)
    got = run(model, a=x, other=zeros, row=zeros)[0]
    # Each product within its bound, and their sum is rounded once.
    bound = 2 * difference_bound(x, w, zeros) + EPS * np.abs(got)
    assert (np.abs(got - 2 * (x.astype(np.float64) @ w)) <= bound).all()


def test_a_bias_is_fused_where_a_residual_may_be_broadcast(rng):
    model, _ = model_of(rng, "p = MatMul(a, w) q = Add(p, c) y = Add(q, row)")
    report = FuseEpilogue()(model)
    assert [c.what for c in report.changes] == ["fused bias"]
    assert "whose shape [R, 6]" in report.refusals[0].reason
    assert op_types(model) == ["SparseMatMul", "Add"]


def test_onnx_gelu(rng):
    model, w = model_of(rng, "p = MatMul(a, w) q = Add(p, c) y = Gelu(q)", opset=20)
    model.ir_version = 9
    assert FuseEpilogue()(model).changes[0].what == "fused bias and Gelu"
    check(model, w, rng, gelu, C)
    again = FuseEpilogue()(model)
    assert not again.modified
    assert "already has the activation Gelu" in again.refusals[0].reason


def test_a_shared_bias_keeps_its_other_readers(rng):
    model, _ = model_of(rng, "p = MatMul(a, w) y = Add(p, c) z = Add(other, c)", "float[M,6] y, float[M,6] z")
    assert FuseEpilogue()(model).modified
    assert "c" in model.graph.initializers
    assert ops.operator_of(model.graph[0]) is not None
    run(model, a=np.zeros((1, 8), np.float32), other=np.zeros((1, 6), np.float32), row=np.zeros((1, 6), np.float32))
