"""Operators of other domains than ONNX's: kept as they are, and refused with their names where nothing can run them."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest
from onnx.numpy_helper import from_array

import sparsify
from sparsify.errors import InputError
from tests.coverage.exact import FORMS, LOWERINGS, ROWS, K, N, assert_same, lower, op_types, rows, weight


def _model(operator: str) -> onnx.ModelProto:
    """A layer, then `operator` on what it gives; one domain is imported for nothing."""
    proto = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1, "com.foo" : 3, "com.idle" : 2]>
        g (float[M,{K}] x) => (float[M,{N}] y) {{ h = MatMul(x, w) y = {operator} (h) }}""")
    proto.graph.initializer.append(from_array(weight(), "w"))
    proto.graph.node[-1].doc_string = "nobody knows"
    return proto


def _kept(base: onnx.ModelProto, made: onnx.ModelProto) -> bool:
    """Whether the last node is there to the byte, and all imports are."""
    imports = {(one.domain, one.version) for one in base.opset_import}
    same = base.graph.node[-1].SerializeToString() in {node.SerializeToString() for node in made.graph.node}
    return same and imports <= {(one.domain, one.version) for one in made.opset_import}


@pytest.mark.parametrize("name", LOWERINGS)
def test_one_that_onnxruntime_has(name: str) -> None:
    base = _model("com.microsoft.QuickGelu <alpha: float = 1.5>")
    rewritten, said = lower(base, name)
    assert said.changes
    assert FORMS[name] in op_types(rewritten)
    assert _kept(base, rewritten)
    assert_same(base, rewritten, {"x": rows(ROWS, K)})


@pytest.mark.parametrize("name", LOWERINGS)
def test_passes_alone_keep_one_that_nobody_has(name: str) -> None:
    base = _model('com.foo.Bar <what: string = "ever", much: ints = [1, 2]>')
    rewritten, said = lower(base, name)
    assert said.changes
    assert _kept(base, rewritten)


def test_what_has_to_run_it_says_its_name() -> None:
    with pytest.raises(InputError, match=r"`Bar` of domain `com\.foo`") as error:
        sparsify.optimize(_model("com.foo.Bar"), threads=1)
    assert "libraries of custom operators are not loaded" in error.value.hint
