"""An operator that onnxruntime does not have is named, with its domain."""

from __future__ import annotations

import onnx.parser
import pytest

from sparsify import runtime
from sparsify.errors import InputError
from sparsify.runtime import refusals

OPSETS = '"" : 17, "com.foo" : 1, "com.microsoft" : 1'
THEN, ELSE = "t () => (float[4] z) { z = com.foo.Bar(x) }", "e () => (float[4] z) { z = Relu(x) }"
IF = f"If(b) <then_branch = {THEN}, else_branch = {ELSE}>"


@pytest.mark.parametrize(
    ("opsets", "call", "says", "hint"),
    [
        (OPSETS, "com.foo.Bar(x)", "operator `Bar` of domain `com.foo` is unknown to onnxruntime", "custom operators"),
        ('"" : 17', "com.foo.Bar(x)", "operator `Bar` of domain `com.foo` is unknown", "custom operators"),
        (OPSETS, "com.microsoft.Bar(x)", "operator `Bar` of domain `com.microsoft` is unknown", "newer onnxruntime"),
        (OPSETS, "Bar(x)", "operator `Bar` of domain `ai.onnx` is unknown", "opset"),
        (OPSETS, IF, "operator `Bar` of domain `com.foo` is unknown", "custom operators"),
    ],
)
def test_an_unknown_operator(opsets: str, call: str, says: str, hint: str):
    text = f"<ir_version: 8, opset_import: [{opsets}]> g (float[4] x, bool b) => (float[4] y) {{ y = {call} }}"
    with pytest.raises(InputError) as error:
        runtime.session(onnx.parser.parse_model(text))
    assert says in error.value.what
    assert hint in error.value.hint


def test_a_contributed_operator_without_a_kernel_here():
    text = """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (float16[4] x) => (float16[4] y) { y = com.microsoft.BiasDropout(x, x) }"""
    with pytest.raises(InputError) as error:
        runtime.session(onnx.parser.parse_model(text))
    assert "operator `BiasDropout` of domain `com.microsoft`, version 1" in error.value.what
    assert "no CPU kernel" in error.value.what
    assert "build" in error.value.hint


def test_other_complaints_are_left_as_they_are():
    assert refusals.explain("[ONNXRuntimeError] : 1 : FAIL : Load model failed") is None
    older = "NOT_IMPLEMENTED : Could not find an implementation for Foo(13) node with name 'n'"
    assert "`Foo` of domain `ai.onnx`, version 13" in (refusals.explain(older) or ("", ""))[0]
