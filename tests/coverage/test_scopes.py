"""Layers in bodies of If, Loop and Scan, and in model-local functions; already quantised parts; odd headers."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper
import onnx_ir as ir
import pytest

import sparsify
from tests.coverage.exact import FORMS, LOWERINGS, ROWS, K, N, assert_same, lower, model, op_types, rows, weight
from tests.onemodel import session

EVERY_LOWERING = pytest.mark.parametrize("name", LOWERINGS)
PLAIN = f"g (float[M,{K}] x) => (float[M,{N}] y) {{ y = MatMul(x, w) }}"

BODIES = {
    "If": f"""g (float[M,{K}] x, bool c) => (float[M,{N}] y) {{ y = If(c) <
        then_branch = t () => (float[M,{N}] a) {{ a = MatMul(x, w) }},
        else_branch = e () => (float[M,{N}] b) {{ b = Gemm(x, w) }}> }}""",
    "Loop": f"""g (float[M,{K}] x, int64 n, bool c, float[M,{N}] z) => (float[M,{N}] y) {{ y = Loop(n, c, z) <
        body = b (int64 i, bool go, float[M,{N}] s) => (bool more, float[M,{N}] t)
        {{ more = Identity(go) h = MatMul(x, w) t = Add(s, h) }}> }}""",
    "Scan": f"""g (float[{ROWS},M,{K}] x) => (float[{ROWS},M,{N}] y) {{ y = Scan(x) <num_scan_inputs = 1,
        body = b (float[M,{K}] row) => (float[M,{N}] out) {{ out = MatMul(row, w) }}> }}""",
}


@EVERY_LOWERING
@pytest.mark.parametrize("kind", BODIES)
def test_in_a_body(name, kind):
    base = model(BODIES[kind], {"w": weight()})
    rewritten, said = lower(base, name)
    assert said.changes
    assert FORMS[name] in op_types(rewritten)
    assert not {"MatMul", "Gemm"} & set(op_types(rewritten))
    x = rows(ROWS, 3, K) if kind == "Scan" else rows(ROWS, K)
    feed = {"x": x, "c": np.array(True), "n": np.array(3), "z": np.zeros((ROWS, N), np.float32)}
    assert_same(base, rewritten, {v.name: feed[v.name] for v in base.graph.input})


FUNCTIONS = {
    "weight given": """y = f.layer(x, w) }
        <domain: "f", opset_import: ["" : 17]> layer (a, b) => (r) { r = MatMul(a, b) }""",
    "called by another": """y = f.outer(x, w) }
        <domain: "f", opset_import: ["" : 17, "f" : 1]> outer (a, b) => (r) { h = f.layer(a, b) r = Neg(h) }
        <domain: "f", opset_import: ["" : 17]> layer (a, b) => (r) { r = MatMul(a, b) }""",
    "with an attribute": """y = f.layer <t = 1> (x, v) }
        <domain: "f", opset_import: ["" : 17]> layer <t> (a, b) => (r) { r = Gemm <transB: int = @t> (a, b) }""",
}


@EVERY_LOWERING
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_in_a_function(name, kind):
    text = f'<ir_version: 8, opset_import: ["" : 17, "f" : 1]> g (float[M,{K}] x) => (float[M,{N}] y) {{ '
    base = onnx.parser.parse_model(text + FUNCTIONS[kind])
    stored, given = (np.ascontiguousarray(weight().T), "v") if "v)" in FUNCTIONS[kind] else (weight(), "w")
    base.graph.initializer.append(onnx.numpy_helper.from_array(stored, given))
    rewritten, said = lower(base, name)
    assert said.changes
    assert FORMS[name] in op_types(rewritten)
    assert_same(base, rewritten, {"x": rows(ROWS, K)})


def test_functions_without_layers_stay_functions():
    text = f"""<ir_version: 8, opset_import: ["" : 17, "f" : 1]> g (float[M,{K}] x) => (float[M,{N}] y)
        {{ h = MatMul(x, w) y = f.act(h) }} <domain: "f", opset_import: ["" : 17]> act (a) => (r) {{ r = Tanh(a) }}"""
    base = onnx.parser.parse_model(text)
    base.graph.initializer.append(onnx.numpy_helper.from_array(weight(), "w"))
    rewritten, _ = lower(base, "sparse-fp32")
    assert "act" in op_types(rewritten)
    assert "act" in {f.name for f in rewritten.functions}


def test_quantised_parts_are_left_alone():
    """QDQ around a layer, and a layer that is int8 already: not a byte of them changes."""
    text = f"""g (float[M,{K}] x) => (float[M,{N}] y, int32[M,{N}] i) {{
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear(w, s, zs) y = MatMul(d, v)
        i = MatMulInteger(q, w, z, zs) }}"""
    arrays = {
        "w": weight().astype(np.int8),
        "s": np.float32(1),
        "z": np.uint8(0),
        "zs": np.int8(0),
    }
    base = model(text, {k: np.asarray(v) for k, v in arrays.items()})
    before = {t.name: t.SerializeToString() for t in base.graph.initializer}
    for level in (1, 2, 3):
        result = sparsify.optimize(base, level=level, threads=1)
        after = ir.to_proto(result.model)
        assert {t.name: t.SerializeToString() for t in after.graph.initializer} == before
        assert [n.op_type for n in after.graph.node] == [n.op_type for n in base.graph.node]


@pytest.mark.parametrize("opset", range(7, onnx.defs.onnx_opset_version() + 1))
def test_opsets(opset):
    """From 11 on every layer is rewritten; below, each is refused with a sentence, and nothing breaks."""
    base = model(PLAIN, {"w": weight()}, opset=opset, ir_version=8 if opset < 21 else 10)
    try:
        session(base, native=False)
    except Exception as error:
        pytest.skip(f"this onnxruntime does not take it: {str(error)[:80]}")
    for name in LOWERINGS:
        rewritten, said = lower(base, name)
        needed = 13 if name == "sparse-bf16" else 11
        assert bool(said.changes) == (opset >= needed)
        assert bool(said.refusals) == (opset < needed)
        if opset < needed:
            assert f"opset {opset} is below" in said.refusals[0].reason
        assert_same(base, rewritten, {"x": rows(ROWS, K)})


@pytest.mark.parametrize("version", range(3, int(onnx.IR_VERSION) + 1))
def test_ir_versions(version):
    """Raised to 8 where functions need it, and never lowered."""
    text = PLAIN.replace("] x)", f"] x, float[{K},{N}] w)") if version == 3 else PLAIN
    base = model(text, {"w": weight()}, opset=11, ir_version=version)
    try:
        session(base, native=False)
    except Exception as error:
        pytest.skip(f"this onnxruntime does not take it: {str(error)[:80]}")
    rewritten, said = lower(base, "sparse-fp32")
    assert said.changes
    assert rewritten.ir_version == max(version, 8)
    assert_same(base, rewritten, {"x": rows(ROWS, K)})
    stock, _ = lower(base, "stock-int8")
    assert stock.ir_version == max(version, 4)


def test_imports_of_a_domain_under_both_its_names():
    base = model(PLAIN, {"w": weight()})
    base.opset_import.add(domain="ai.onnx", version=17)
    base.opset_import.add(domain="", version=17)
    rewritten, said = lower(base, "sparse-fp32")
    assert said.changes
    assert sorted(o.domain for o in rewritten.opset_import) == ["", "ai.sparsify"]
    assert_same(base, rewritten, {"x": rows(ROWS, K)})


def test_nodes_without_names():
    text = f"g (float[M,{K}] x) => (float[M,{N}] y, float[M,{N}] z) {{ y = MatMul(x, w) z = MatMul(x, v) }}"
    base = model(text, {"w": weight(), "v": weight(seed=3)})
    rewritten, said = lower(base, "sparse-fp32")
    assert [c.node for c in said.changes] == ["MatMul -> y", "MatMul -> z"]
    assert_same(base, rewritten, {"x": rows(ROWS, K)})
