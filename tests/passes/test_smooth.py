"""Outliers move into weights: the same answers to the bit, smaller ranges, and reasons where that cannot be."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from sparsify.errors import UsageError
from sparsify.graph import linear_layers
from sparsify.passes.smooth import Smooth
from sparsify.patterns import Pattern
from sparsify.pruning import FEEDS
from sparsify.rewrite import CHOICE, Choice, Report
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


def masked(**rows_of: np.ndarray) -> ir.Model:
    """One sequence [1, 16, K] with a mask, of which `x` are the rows and `real` says which count."""
    model = network()
    model.graph.inputs[0].shape = ir.Shape([1, "M", K])
    model.graph.inputs.append(ir.Value(name="attention_mask", type=ir.TensorType(ir.DataType.INT64)))
    model.meta[FEEDS] = [{"x": rows_of["x"][None], "attention_mask": rows_of["real"][None].astype(np.int64)}]
    return model


def smoothed_weight(model: ir.Model) -> np.ndarray:
    assert Smooth()(model).modified
    product = next(node for node in model.graph if node.op_type == "MatMul")
    return product.inputs[1].const_value.numpy()


def test_padding_and_rows_that_are_not_finite_do_not_count() -> None:
    """A row whose largest input is another one would move the factors, if it counted."""
    x, real = rows(count=16), np.arange(16) < 10
    expected = smoothed_weight(masked(x=x[real], real=real[real]))
    padded = x.copy()
    padded[~real] = 0
    padded[~real, 7] = 100
    assert not np.array_equal(smoothed_weight(masked(x=padded, real=np.ones(16))), expected)
    np.testing.assert_array_equal(smoothed_weight(masked(x=padded, real=real)), expected)
    for spoil in (np.nan, np.inf):
        padded[~real] = spoil
        np.testing.assert_array_equal(smoothed_weight(masked(x=padded, real=np.ones(16))), expected)


def test_without_a_row_that_counts_nothing_is_known() -> None:
    model = masked(x=rows(), real=np.zeros(16))
    assert {r.reason for r in Smooth()(model).refusals} == {"no data reached its inputs"}  # type: ignore[attr-defined]


def test_weights_that_are_not_finite_keep_their_scale() -> None:
    model = network()
    weight = model.graph.initializers["w"].const_value.numpy().copy()
    weight[4, 4] = np.inf
    set_constant(model, "w", weight)
    assert apply(model).modified
    changed = next(node for node in model.graph if node.op_type == "MatMul").inputs[1].const_value.numpy()
    np.testing.assert_array_equal(changed[4], weight[4])
    assert not np.isnan(changed).any()


INT8, PRUNED, LEFT = Choice("sparse-int8"), Choice("sparse-int8", Pattern(16, 64)), Choice()


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ((INT8, INT8), ""),
        ((LEFT, INT8), ""),
        ((LEFT, LEFT), "the search leaves it, and all that read its input"),
        ((INT8, PRUNED), "the search prunes it, or another layer that reads its input"),
    ],
)
def test_keeps_to_what_a_search_chose(choices: tuple[Choice, Choice], says: str) -> None:
    model = network()
    for layer, choice in zip(linear_layers(model), choices, strict=True):
        layer.node.meta[CHOICE] = choice
    report = apply(model)
    assert len(report.changes) == (0 if says else 2)
    assert {r.reason for r in report.refusals} == ({says} if says else set())


def test_strength_is_checked() -> None:
    with pytest.raises(UsageError, match="strength"):
        Smooth(strength=1.5)
