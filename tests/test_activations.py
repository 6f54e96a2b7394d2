import math

import numpy as np
import onnx_ir as ir
import pytest

from sparsify.activations import activation, gelu, gelu_tanh, silu


def after(body: str, opset: int = 20) -> ir.Value:
    model = ir.from_onnx_text(f"""<ir_version: 9, opset_import: ["" : {opset}, "com.microsoft" : 1]>
        g (float[M,4] a) => (float[M,4] y) <float root = {{1.4142135}}, float inverse = {{0.70710677}},
        float one = {{1}}, float half = {{0.5}}, float two = {{2}}, float near = {{1.4142}}, float three = {{3}},
        float cubic = {{0.044715}}, float factor = {{0.79788458}}, float off = {{0.0447}}, float[1,1,1] wide = {{0.5}}>
        {{ x = Abs(a) {body} }}""")
    return model.graph[0].outputs[0]


GELUS = [
    "d = Div(x, root) e = Erf(d) p = Add(e, one) m = Mul(x, p) y = Mul(m, half)",
    "d = Div(x, root) e = Erf(d) p = Add(one, e) m = Mul(p, x) y = Mul(half, m)",
    "d = Mul(x, inverse) e = Erf(d) p = Add(e, one) m = Mul(p, half) y = Mul(x, m)",
    "d = Mul(inverse, x) e = Erf(d) p = Add(e, one) h = Mul(x, half) y = Mul(h, p)",
    "h = Mul(half, x) d = Div(x, root) e = Erf(d) p = Add(e, one) y = Mul(p, h)",
    "h = Div(x, two) d = Div(x, root) e = Erf(d) p = Add(e, one) y = Mul(p, h)",
    "y = Gelu(x)",
    'y = Gelu<approximate="none">(x)',
    "y = com.microsoft.Gelu(x)",
]


# As written by Hugging Face's gelu_new and gelu_fast, by PyTorch's exporter, and by runtimes.
TANH_GELUS = [
    "h = Mul(x, half) g = Pow(x, three) v = Mul(g, cubic) s = Add(x, v) i = Mul(s, factor) t = Tanh(i) "
    "u = Add(t, one) y = Mul(h, u)",
    "h = Mul(x, half) a1 = Mul(x, factor) b = Mul(x, cubic) v = Mul(b, x) d = Add(v, one) i = Mul(a1, d) t = Tanh(i) "
    "u = Add(t, one) y = Mul(h, u)",
    "q = Mul(x, x) k = Mul(x, q) v = Mul(cubic, k) s = Add(x, v) i = Mul(factor, s) t = Tanh(i) u = Add(one, t) "
    "m = Mul(x, u) y = Mul(half, m)",
    'y = Gelu<approximate="tanh">(x)',
    "y = com.microsoft.FastGelu(x)",
]
SILUS = ["s = Sigmoid(x) y = Mul(x, s)", "s = Sigmoid(x) y = Mul(s, x)"]


@pytest.mark.parametrize(
    ("name", "body"), [*(("GeluTanh", body) for body in TANH_GELUS), *(("Silu", body) for body in SILUS)]
)
def test_knows_tanh_gelu_and_silu_in_every_form(name, body):
    found = activation(after(body))
    assert found.name == name
    assert found.output.name == "y"
    assert {n.op_type for n in found.nodes} == {n.op_type for n in found.output.graph} - {"Abs"}
    assert found.function is {"GeluTanh": gelu_tanh, "Silu": silu}[name]


def test_knows_swish_of_onnx():
    assert activation(after("y = Swish(x)", opset=24)).name == "Silu"
    assert activation(after("y = Swish<alpha=2.0>(x)", opset=24)) is None


@pytest.mark.parametrize("body", GELUS)
def test_knows_gelu_by_erf_in_every_form(body):
    found = activation(after(body))
    assert found.name == "Gelu"
    assert found.output.name == "y"
    assert {n.op_type for n in found.nodes} == {n.op_type for n in found.output.graph} - {"Abs"}


@pytest.mark.parametrize(
    "body",
    [
        "y = com.microsoft.FastGelu(x, a)",
        "q = Mul(x, x) k = Mul(x, q) c = Mul(off, k) s = Add(x, c) i = Mul(factor, s) t = Tanh(i) u = Add(one, t) "
        "m = Mul(x, u) y = Mul(half, m)",
        "s = Sigmoid(x) m = Mul(x, s) y = Add(m, s)",
        "s = Sigmoid(x) m = Mul(a, s) y = Mul(m, x)",
        "s = Sigmoid(x) e = Erf(x) y = Mul(e, s)",
        "d = Div(x, root) e = Erf(d) p = Add(e, one) m = Mul(x, p) y = Mul(m, wide)",
        "d = Div(x, near) e = Erf(d) p = Add(e, one) m = Mul(x, p) y = Mul(m, half)",
        "d = Div(root, x) e = Erf(d) p = Add(e, one) m = Mul(x, p) y = Mul(m, half)",
        "d = Div(x, root) e = Tanh(d) p = Add(e, one) m = Mul(x, p) y = Mul(m, half)",
        "d = Div(x, root) e = Erf(d) p = Add(e, half) m = Mul(x, p) y = Mul(m, half)",
        "d = Div(x, root) e = Erf(d) p = Add(e, one) m = Mul(x, p) y = Mul(m, two)",
        "d = Div(x, root) e = Erf(d) p = Add(e, one) m = Mul(a, p) q = Mul(m, half) y = Add(q, x)",
        "d = Div(x, root) e = Erf(d) p = Add(e, one) m = Mul(x, p) n = Mul(m, half) y = Add(n, e)",
        "y = Mul(x, x)",
    ],
)
def test_other_functions_do_not_match(body):
    assert activation(after(body)) is None


@pytest.mark.parametrize(
    "op", ["Relu", "Tanh", "Sigmoid", "Erf", "Softplus", "Softsign", "Abs", "Neg", "LeakyRelu", "Gelu"]
)
def test_functions_are_what_onnxruntime_computes(op):
    from tests.running import run

    body = f"y = {op}<alpha=0.2>(x)" if op == "LeakyRelu" else f"y = {op}(x)"
    found = activation(after(body))
    x = np.linspace(-4, 4, 16, dtype=np.float32).reshape(4, 4)
    model = ir.from_onnx_text(
        f'<ir_version: 9, opset_import: ["" : 20]> g (float[4,4] x) => (float[4,4] y) {{ {body} }}'
    )
    # onnxruntime's erf, tanh and exp are rational approximations good to a few ulp of a result of at most 4.
    np.testing.assert_allclose(run(model, x=x)[0], found.function(x.astype(np.float64)), rtol=0, atol=8 * 4 * 2.0**-23)


def test_gelu_is_the_formula():
    x = np.array([-3.0, -0.5, 0.0, 2.0])
    expected = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x]
    np.testing.assert_allclose(gelu(x), expected, rtol=1e-14)  # both in float64, a dozen roundings of 1.1e-16
