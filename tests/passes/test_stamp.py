import onnx_ir as ir

from sparsify.passes.stamp import Stamp


def test_writes_what_it_is_given_once():
    model = ir.from_onnx_text('<ir_version: 8, opset_import: ["" : 17]> g (float[M] x) => (float[M] y) { y = Relu(x) }')
    stamp = Stamp(version="0.1.0", pipeline="prune{pattern=16:64},sparse-int8")
    assert stamp(model).modified
    assert model.metadata_props == {
        "ai.sparsify.version": "0.1.0",
        "ai.sparsify.pipeline": "prune{pattern=16:64},sparse-int8",
    }
    assert not stamp(model).modified
    assert Stamp(version="0.2.0")(model).modified
    assert model.metadata_props["ai.sparsify.version"] == "0.2.0"


def test_what_an_earlier_run_said_goes():
    model = ir.from_onnx_text('<ir_version: 8, opset_import: ["" : 17]> g (float[M] x) => (float[M] y) { y = Relu(x) }')
    model.metadata_props["author"] = "somebody"
    Stamp(version="0.1.0", drift="y: cosine 0.9")(model)
    assert Stamp(version="0.1.0")(model).modified
    assert model.metadata_props == {"author": "somebody", "ai.sparsify.version": "0.1.0"}


def test_nothing_given_nothing_written():
    model = ir.from_onnx_text('<ir_version: 8, opset_import: ["" : 17]> g (float[M] x) => (float[M] y) { y = Relu(x) }')
    report = Stamp()(model)
    assert not report.modified
    assert "nothing to write" in report.refusals[0].reason
