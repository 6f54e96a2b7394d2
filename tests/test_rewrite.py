from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
import pytest

from sparsify.errors import UsageError
from sparsify.graph import Linear
from sparsify.patterns import Pattern
from sparsify.rewrite import Change, Event, Finding, Pass, Refusal, layers

HALF = Pattern(2, 4)


@dataclass(frozen=True)
class Example(Pass):
    """A pass that yields one event of the kind asked for."""

    name: ClassVar[str] = "example"

    kind: str = "change"
    count: int = 1
    share: float = 0.5
    loud: bool = False
    pattern: Pattern = HALF

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        event = {"change": Change, "refusal": Refusal, "finding": Finding}[self.kind]
        for _ in range(self.count):
            yield event("n", "because")


def empty() -> ir.Model:
    return ir.from_onnx_text('<ir_version: 8, opset_import: ["" : 17]> g (float[M] x) => (float[M] y) { y = Relu(x) }')


@pytest.mark.parametrize(("kind", "modified"), [("change", True), ("refusal", False), ("finding", False)])
def test_events_are_sorted_and_only_changes_modify(kind, modified):
    report = Example(kind=kind, count=2)(empty())
    assert report.modified is modified
    assert [len(report.changes), len(report.refusals), len(report.findings)] == [
        2 * (kind == k) for k in ("change", "refusal", "finding")
    ]


def test_options_are_text_and_back():
    options = {"kind": "refusal", "count": "3", "share": "0.25", "loud": "true", "pattern": "16:64"}
    made = Example.from_options(options)
    assert made == Example("refusal", 3, 0.25, True, Pattern(16, 64))
    assert str(made) == "example{kind=refusal,count=3,share=0.25,loud=true,pattern=16:64}"


@pytest.mark.parametrize("options", [{"cuont": "1"}, {"count": "x"}, {"loud": "yes"}, {"pattern": "5"}])
def test_bad_options_are_usage_errors(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        Example.from_options(options)


def test_layers_are_all_matmuls_and_gemms():
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17, "f" : 1]>
        g (float[3,2] x, float[2,2] v) => (float[3,2] y) <float[2,2] w = {1, 2, 3, 4}>
        { a = MatMul(x, w) b = f.dense(a, v) y = Gemm(b, v) }
        <domain: "f", opset_import: ["" : 17]> dense (x, w) => (y) { y = MatMul(x, w) }""")
    first, second, third = layers(model)
    assert isinstance(first, Linear)
    assert isinstance(second, Refusal)
    assert second.node == "Gemm -> y"
    assert third == Refusal("MatMul -> y", "inside the function `dense`")
    model.graph.opset_imports[""] = 10
    assert "onnx.version_converter" in layers(model)[0].reason
