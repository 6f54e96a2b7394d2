"""Where a weight may stand, in which type, and who else may read it: docs/coverage.md lists what is held here."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from ml_dtypes import bfloat16
from onnx.numpy_helper import from_array

from tests.coverage.exact import FORMS, LOWERINGS, ROWS, K, N, assert_same, lower, model, op_types, rows, weight

G = f"g (float[M,{K}] x) => (float[M,{N}] y)"
EVERY_LOWERING = pytest.mark.parametrize("name", LOWERINGS)


@EVERY_LOWERING
@pytest.mark.parametrize(
    ("body", "stored"),
    [
        ("y = MatMul(x, w)", weight()),
        ("v = Identity(w) y = MatMul(x, v)", weight()),
        ("v = Transpose(w) y = MatMul(x, v)", weight().T),
        ("v = Transpose<perm = [1, 0]>(w) u = Identity(v) y = Gemm(x, u)", weight().T),
        ("v = Cast<to = 1>(w) y = MatMul(x, v)", weight().astype(np.float16)),
        ("v = Cast<to = 1>(w) y = MatMul(x, v)", weight().astype(np.float64)),
        ("v = Cast<to = 1>(w) u = Transpose(v) y = MatMul(x, u)", weight().T.astype(np.float16)),
        ("v = Transpose(w) u = Cast<to = 1>(v) y = Gemm<transB = 1>(x, u)", weight().astype(bfloat16)),
    ],
)
def test_behind_identity_transpose_and_cast(name, body, stored):
    base = model(f"{G} {{ {body} }}")
    base.graph.initializer.append(ir.to_proto(ir.tensor(np.ascontiguousarray(stored), name="w")))
    for before in ((), ("cleanup",)):
        rewritten, _ = lower(base, name, before)
        assert FORMS[name] in op_types(rewritten)
        assert "w" not in {t.name for t in rewritten.graph.initializer}
        assert_same(base, rewritten, {"x": rows(ROWS, K)})


@EVERY_LOWERING
def test_in_a_constant_node(name):
    base = model(f"{G} {{ y = MatMul(x, w) }}")
    node = base.graph.node.add(op_type="Constant", output=["w"])
    node.attribute.add(name="value", type=4).t.CopyFrom(from_array(weight(), "inner"))
    base.graph.node.insert(0, base.graph.node.pop())
    for before in ((), ("cleanup",)):
        rewritten, _ = lower(base, name, before)
        assert FORMS[name] in op_types(rewritten)
        assert_same(base, rewritten, {"x": rows(ROWS, K)})


@EVERY_LOWERING
def test_in_half_precision(name):
    base = model(
        f"g (float16[M,{K}] x) => (float16[M,{N}] y) {{ h = MatMul(x, w) y = Add(h, b) }}",
        {"w": weight().astype(np.float16), "b": np.arange(N, dtype=np.float16)},
    )
    rewritten, _ = lower(base, name)
    assert FORMS[name] in op_types(rewritten)
    assert_same(base, rewritten, {"x": rows(ROWS, K).astype(np.float16)})


@EVERY_LOWERING
def test_of_double_is_refused(name):
    base = model(f"g (double[M,{K}] x) => (double[M,{N}] y) {{ y = MatMul(x, w) }}", {"w": weight().astype(np.float64)})
    rewritten, said = lower(base, name)
    assert [r.reason for r in said.refusals] == ["the weight is DOUBLE, not FLOAT"]
    assert rewritten.graph.initializer[0] == base.graph.initializer[0]


@pytest.mark.parametrize("name", ["sparse-fp32", "stock-int8"])  # one for each way of replacing a node
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, 2.0), (1.0, 0.0)])
@pytest.mark.parametrize("transposed", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("c", ["", "vector", "scalar", "matrix", "input"])
def test_gemm_in_every_form(name, alpha, beta, transposed, c):
    a, b = transposed
    if c == "matrix":
        bias = np.arange(ROWS * N, dtype=np.float32).reshape(ROWS, N)
    else:
        bias = np.float32(3) if c == "scalar" else np.arange(N, dtype=np.float32)
    shape = f"{K},{ROWS}" if a else f"{ROWS},{K}"
    more, third = (f", float[{N}] c" if c == "input" else ""), (", c" if c else "")
    attributes = f"transA = {a}, transB = {b}, alpha = {alpha}, beta = {beta}"
    arrays = {"w": np.ascontiguousarray(weight().T) if b else weight()}
    if c not in ("", "input"):
        arrays["c"] = np.asarray(bias)
    base = model(
        f"g (float[{shape}] x{more}) => (float[{ROWS},{N}] y) {{ y = Gemm<{attributes}>(x, w{third}) }}", arrays
    )
    rewritten, _ = lower(base, name)
    assert FORMS[name] in op_types(rewritten)
    feed = {"x": np.ascontiguousarray(rows(ROWS, K).T) if a else rows(ROWS, K)}
    assert_same(base, rewritten, feed | ({"c": bias} if c == "input" else {}))


@EVERY_LOWERING
@pytest.mark.parametrize(
    ("x", "w", "reason"),
    [
        ((2, 3, K), (K, N), ""),
        ((4, 2, 3, K), (K, N), ""),
        ((2, 3, K), (1, K, N), ""),
        ((4, 2, 3, K), (1, 1, K, N), ""),
        ((3, K), (1, K, N), "rank 3, and that of the activations is not known to be as large"),
        ((2, 3, K), (2, K, N), "rank 3, not 2"),
        ((1, 3, K), (2, K, N), "rank 3, not 2"),
        ((K,), (K, N), "rank 1"),
        ((3, K), (K,), "rank 1"),
    ],
)
def test_batched_and_broadcast_matmul(name, x, w, reason):
    stored = np.ascontiguousarray(np.broadcast_to(weight(), w)) if len(w) > 1 else weight()[:, 0]
    given = ",".join(map(str, x))
    out = np.matmul(np.zeros(x), np.zeros(w)).shape
    base = model(f"g (float[{given}] x) => (float[{','.join(map(str, out))}] y) {{ y = MatMul(x, w) }}", {"w": stored})
    rewritten, said = lower(base, name)
    assert all(reason in r.reason for r in said.refusals) or not reason
    assert (FORMS[name] in op_types(rewritten)) == (reason == "")
    assert_same(base, rewritten, {"x": rows(*x)})


@EVERY_LOWERING
def test_a_constant_on_the_left_is_refused(name):
    base = model(f"g (float[{N},M] x) => (float[{K},M] y) {{ y = MatMul(w, x) }}", {"w": weight()})
    _, said = lower(base, name)
    assert [r.reason for r in said.refusals] == ["the constant is on the left"]


SHARED = {
    "many nodes": f"g (float[M,{K}] x) => (float[M,{N}] y) {{ a = MatMul(x, w) b = Gemm(x, w) y = Add(a, b) }}",
    "Gather and MatMul": f"""g (float[M,{K}] x, int64[I] i) => (float[M,{N}] y, float[I,{N}] e)
        {{ y = MatMul(x, w) e = Gather(w, i) }}""",
    "both ways up": f"""g (float[M,{K}] x, float[M,{N}] z) => (float[M,{N}] y, float[M,{K}] u)
        {{ y = MatMul(x, w) t = Transpose(w) u = MatMul(z, t) }}""",
    "an output": f"g (float[M,{K}] x) => (float[M,{N}] y, float[{K},{N}] w2) {{ y = MatMul(x, w) w2 = Identity(w) }}",
}


@pytest.mark.parametrize("name", ["sparse-fp32", "sparse-bf16"])  # int8 is not exact both ways up
@pytest.mark.parametrize("text", SHARED.values(), ids=SHARED)
def test_shared(name, text):
    base = model(text, {"w": weight()})
    rewritten, said = lower(base, name)
    assert said.changes
    feed = {"x": rows(ROWS, K), "i": np.array([3, 0, 3]), "z": rows(ROWS, N)}
    assert_same(base, rewritten, {v.name: feed[v.name] for v in base.graph.input})


@EVERY_LOWERING
def test_layers_that_share_a_weight_share_its_encoding(name):
    rewritten, _ = lower(model(SHARED["many nodes"], {"w": weight()}), name)
    calls = [n for n in ir.from_proto(rewritten).graph if n.op_type == FORMS[name]]
    assert len(calls) == 2
    assert calls[0].inputs[1] is calls[1].inputs[1]


@EVERY_LOWERING
def test_an_initializer_that_callers_may_override_is_left(name):
    base = model(f"g (float[M,{K}] x, float[{K},{N}] w) => (float[M,{N}] y) {{ y = MatMul(x, w) }}", {"w": weight()})
    rewritten, said = lower(base, name)
    assert "callers may override" in said.refusals[0].reason
    other = {"x": rows(ROWS, K), "w": weight(seed=5)}
    assert_same(base, rewritten, other)


@EVERY_LOWERING
def test_in_ir_version_3_every_weight_is_an_input_and_yet_a_constant(name):
    base = model(
        f"g (float[M,{K}] x, float[{K},{N}] w) => (float[M,{N}] y) {{ y = MatMul(x, w) }}",
        {"w": weight()},
        opset=11,
        ir_version=3,
    )
    if name == "sparse-bf16":
        return  # needs opset 13
    rewritten, said = lower(base, name)
    assert said.changes
    assert_same(base, rewritten, {"x": rows(ROWS, K)})
