"""Classes of layers, and the one-layer models that they are timed as."""

from __future__ import annotations

import numpy as np
import pytest

from sparsify import cost, graph, ops, runtime
from sparsify.rewrite import Choice
from sparsify.tune import candidates
from tests.references import product_bound

RNG = np.random.default_rng(0)
MATRIX = RNG.standard_normal((48, 32)).astype(np.float32)
BIAS = np.ones(32, np.float32)


@pytest.mark.parametrize("residual", [False, True])
def test_a_class_knows_what_is_fused_with_its_layers(residual: bool) -> None:
    model = cost.dense_model(MATRIX, BIAS, ops.Activation.NONE, residual=residual)
    (kind,) = candidates.kinds(model, list(graph.linear_layers(model)), rows=8)
    assert kind == candidates.Kind((48, 32), 8, True, ops.Activation.NONE, 1.0, residual)


def test_a_residual_is_part_of_both_models() -> None:
    x, r = (RNG.standard_normal((5, n)).astype(np.float32) for n in MATRIX.shape)
    dense = cost.dense_model(MATRIX, BIAS, ops.Activation.NONE, residual=True)
    fp32 = candidates.form(MATRIX, BIAS, ops.Activation.NONE, Choice("sparse-fp32"), residual=True)
    (node,) = fp32.graph
    assert node.op_type == "SparseMatMulAdd"
    exact = x.astype(np.float64) @ MATRIX + BIAS + r
    bound = product_bound(x, MATRIX, BIAS) + np.abs(exact) * 2.0**-23  # one more sum
    for model in (dense, fp32):
        y = runtime.run(runtime.session(model), {"X": x, "R": r})["Y"]
        assert (np.abs(y - exact) <= bound).all()
