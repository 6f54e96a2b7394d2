import numpy as np
import onnx_ir as ir

from sparsify.passes.detect import Detect
from tests.running import set_constant


def test_finds_everything_and_changes_nothing(rng):
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[M,64] x) => (float[M,8] y, float[8,M] z) <float[1,1] w = {0}>
        { dense = MatMul(x, w) y = Relu(dense) a = Transpose(x) b = Transpose(w) z = MatMul(b, a) }""")
    w = np.zeros((64, 8), np.float32)
    w[:16] = 1
    set_constant(model, "w", w)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    report = Detect()(model)
    assert not report.modified
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert [f.node for f in report.findings] == ["MatMul -> dense"]
    facts = {"op": "MatMul", "shape": [64, 8], "sparsity": 0.75, "pattern": "16:64", "bytes": 2048}
    assert report.findings[0].facts == facts
    assert report.findings[0].what == "MatMul 64x8, 75% sparse, satisfies 16:64"
    assert [r.reason for r in report.refusals] == ["the constant is on the left"]


def test_a_full_weight_satisfies_no_pattern():
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]> g (float[M,2] x) => (float[M,2] y)
        <float[2,2] w = {1, 2, 3, 4}> { y = MatMul(x, w) }""")
    assert Detect()(model).findings[0].facts["pattern"] is None
    assert Detect(block=2)(model).findings[0].what == "MatMul 2x2, 0% sparse"
