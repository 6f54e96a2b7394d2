"""Statistics of layers' inputs while the model is being pruned."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sparsify.calibration import Learner
from sparsify.graph import linear_layers
from sparsify.solvers.statistics import LAMBDA


def test_a_learner_sees_the_difference_that_a_change_upstream_makes():
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[M,2] x) => (float[M,2] y) <float[2,2] a = {1,2,3,4}, float[2,2] b = {1,1,1,1}>
        { h = MatMul(x, a) y = MatMul(h, b) }""")
    x = np.array([[1, 0], [0, 2], [3, 1]], np.float32)
    first, second = linear_layers(model)
    learner = Learner(model, [{"x": x[:1]}, {"x": x[1:]}], memory=2**20)
    found = learner.statistics([first], [first])[first.source]
    assert found.moment.tolist() == (x.T @ x).tolist()
    changed = np.array([[1, 0], [3, 4]], np.float32)
    model.graph.initializers["a"].const_value = ir.tensor(changed, name="a")
    found = learner.statistics([second], [second])[second.source]
    learner.close()
    h, dense = x.astype(np.float64) @ changed, x @ np.array([[1, 2], [3, 4]])
    assert found.moment.tolist() == (h.T @ h).tolist()
    weight = np.ones((2, 2), np.float32)
    ridge = LAMBDA * np.diag(np.diag(h.T @ h))
    wanted = np.linalg.solve(h.T @ h + ridge, h.T @ dense @ weight + ridge @ weight)
    # Sums of small integers are exact; the solution is float64, the target is rounded to float32 once.
    assert np.abs(found.target(weight, 1.0, centred=False) - wanted).max() <= 2.0**-22 * np.abs(wanted).max()
