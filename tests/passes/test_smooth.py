"""Outliers move into weights: the same answers to the bit, smaller ranges, and reasons where that cannot be."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from sparsify.errors import UsageError
from sparsify.passes.smooth import Smooth
from sparsify.pruning import FEEDS
from sparsify.rewrite import Report
from tests.running import op_types, run, set_constant

K, N = 24, 40

NORMALISED = {
    "operator": "h = LayerNormalization<axis = -1>(x, gamma, beta)",
    "mul and add": "m = ReduceMean<axes = [-1]>(x) c = Sub(x, m) d = Mul(c, gamma) h = Add(beta, d)",
    "mul": "c = Abs(x) h = Mul(gamma, c)",
}


def network(
    first: str = "operator", *, after: str = "", outputs: str = "", second: str = "z = MatMul(h, v)"
) -> ir.Model:
    """y = h w, z = h v of a normalised h, one input of which is large."""
    text = NORMALISED[first]
    model = ir.from_onnx_text(f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[M,{K}] x) => (float[M,{N}] y, float[M,{N}] z{outputs})
        <float[1] gamma = {{0}}, float[1] beta = {{0}}, float[1,1] w = {{0}}, float[1,1] v = {{0}}> {{
            {text}
            y = MatMul(h, w)
            {second}
            {after}
        }}""")
    rng = np.random.default_rng(0)
    gamma = rng.uniform(0.5, 2, K).astype(np.float32)
    gamma[3] = 300
    set_constant(model, "gamma", gamma)
    set_constant(model, "beta", rng.standard_normal(K).astype(np.float32))
    for name in ("w", "v"):
        set_constant(model, name, rng.standard_normal((K, N)).astype(np.float32))
    return model


def rows(seed: int = 1, count: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, K)).astype(np.float32)


def apply(model: ir.Model, **options: float) -> Report:
    model.meta[FEEDS] = [{"x": rows(seed)} for seed in range(4)]
    report = Smooth(**options)(model)
    assert isinstance(report, Report)
    return report


@pytest.mark.parametrize("first", NORMALISED)
@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0])
def test_answers_stay_and_the_outlier_shrinks(first: str, strength: float) -> None:
    model = network(first)
    before = run(model, x=rows())
    report = apply(model, strength=strength)
    assert [c.facts["shape"] for c in report.changes] == [[K, N], [K, N]]
    assert report.changes[0].facts["largest_factor"] >= 300**strength / 4  # a power of two, and others have scales too
    for old, new in zip(before, run(model, x=rows()), strict=True):
        # Powers of two: every product x w is the same number.
        np.testing.assert_array_equal(new, old)


def test_a_layer_normalisation_in_int8_loses_less() -> None:
    """What it is for: rows quantised to 8 bits, as `sparse-int8` does."""

    def loss(model: ir.Model) -> float:
        product = next(node for node in model.graph if node.op_type == "MatMul")
        w = product.inputs[1].const_value.numpy()
        node = product.inputs[0].producer()
        gamma, beta = (node.inputs[i].const_value.numpy() for i in (1, 2))
        x = rows(9, 64).astype(np.float64)
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * gamma + beta
        step = (np.maximum(x.max(1), 0) - np.minimum(x.min(1), 0))[:, None] / 255
        column = np.abs(w).max(axis=0) / 127
        found = (np.rint(x / step) * step) @ (np.rint(w / column) * column)
        return float(np.square(found - x @ w).sum() / np.square(x @ w).sum())

    model = network()
    before = loss(model)
    apply(model)
    assert loss(model) < before / 2


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (network(after="r = Neg(h)", outputs=f", float[M,{K}] r"), "Neg reads its input, too"),
        (network(outputs=f", float[M,{K}] h"), "an output of the model"),
        (network(second="z = MatMul(h, w)"), "a weight is used elsewhere, too"),
    ],
)
def test_refuses_with_a_reason(model: ir.Model, says: str) -> None:
    before = op_types(model)
    report = apply(model)
    assert not report.modified
    assert all(says in r.reason for r in report.refusals)
    assert len(report.refusals) == 2
    assert op_types(model) == before


def test_other_makers_and_missing_data_are_refused() -> None:
    model = network("mul")
    mul = next(node for node in model.graph if node.op_type == "Mul")
    mul.op_type = "Div"
    assert {r.reason for r in apply(model).refusals} == {"no normalisation with constant scales makes its input"}
    report = Smooth()(network())
    assert {r.reason for r in report.refusals} == {"no data reached its inputs"}  # type: ignore[attr-defined]


def test_nothing_stands_out_when_all_are_alike() -> None:
    model = network("mul")
    set_constant(model, "gamma", np.ones(K, np.float32))
    for name in ("w", "v"):
        set_constant(model, name, np.ones((K, N), np.float32))
    model.meta[FEEDS] = [{"x": np.ones((2, K), np.float32)}]
    assert {r.reason for r in Smooth()(model).refusals} == {"no input stands out"}  # type: ignore[attr-defined]


def test_inputs_that_are_never_there_keep_their_scale() -> None:
    model = network("mul")
    gamma = model.graph.initializers["gamma"].const_value.numpy().copy()
    gamma[5] = 0
    set_constant(model, "gamma", gamma)
    before = run(model, x=rows())
    assert apply(model).modified
    for old, new in zip(before, run(model, x=rows()), strict=True):
        np.testing.assert_array_equal(new, old)


def test_strength_is_checked() -> None:
    with pytest.raises(UsageError, match="strength"):
        Smooth(strength=1.5)
