import math

import numpy as np
import onnx_ir as ir
import pytest

from sparsify.activations import activation, gelu


def after(body: str, opset: int = 20) -> ir.Value:
    model = ir.from_onnx_text(f"""<ir_version: 9, opset_import: ["" : {opset}, "com.microsoft" : 1]>
        g (float[M,4] a) => (float[M,4] y) <float root = {{1.4142135}}, float inverse = {{0.70710677}},
        float one = {{1}}, float half = {{0.5}}, float two = {{2}}, float near = {{1.4142}}>
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


@pytest.mark.parametrize("body", GELUS)
def test_knows_gelu_by_erf_in_every_form(body):
    found = activation(after(body))
    assert found.name == "Gelu"
    assert found.output.name == "y"
    assert {n.op_type for n in found.nodes} == {n.op_type for n in found.output.graph} - {"Abs"}


@pytest.mark.parametrize(
    "body",
    [
        'y = Gelu<approximate="tanh">(x)',
        "y = com.microsoft.FastGelu(x)",
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
