"""Layers fed by Relu skip zeros: same answers, refused with a reason where there is nothing to skip."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from sparsify.errors import UsageError
from sparsify.passes.dynamic_sparse import DynamicSparse
from sparsify.pruning import FEEDS
from sparsify.rewrite import Report
from tests.running import difference_bound, op_types, run, set_constant

K, N = 60, 33


def network(shift: float, *, activation: str = "Relu", extra: str = "", outputs: str = "") -> ir.Model:
    """h = Relu(x + shift): the lower the shift, the more zeros; y = h w."""
    model = ir.from_onnx_text(f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[M,{K}] x) => (float[M,{N}] y{outputs}) <float[1] s = {{{shift}}}, float[1,1] w = {{0}}> {{
            shifted = Add(x, s)
            h = {activation}(shifted)
            y = MatMul(h, w)
            {extra}
        }}""")
    set_constant(model, "w", np.random.default_rng(0).standard_normal((K, N)).astype(np.float32))
    return model


def rows(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, K)).astype(np.float32)


def apply(model: ir.Model, count: int = 1, **options: object) -> Report:
    model.meta[FEEDS] = [{"x": rows(count, seed)} for seed in range(8)]
    report = DynamicSparse(**options)(model)  # type: ignore[arg-type]
    assert isinstance(report, Report)
    return report


def weight(model: ir.Model) -> np.ndarray:
    value = model.graph.initializers["w"].const_value
    assert value is not None
    return value.numpy()


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("values", ["fp32", "bf16", "int8"])
def test_computes_the_same_from_the_inputs_that_are_not_zero(count: int, values: str) -> None:
    model = network(-3.5)
    w, x = weight(model), rows(count)
    before = run(model, x=x)[0]
    report = apply(model, count, values=values)
    assert [c.what.split(",")[0] for c in report.changes] == [
        f"now SparseMatMul{'' if values == 'fp32' else values.capitalize()}Rows"
    ]
    assert report.changes[0].facts["zeros"] > 0.9
    assert report.changes[0].facts["rows"] == count
    h = np.maximum(x - np.float32(3.5), 0)
    bound = difference_bound(h, w)
    if values == "bf16":  # each weight is off by 2^-8 of itself at most
        bound = bound + 1.01 * 2**-8 * np.abs(h) @ np.abs(w)
    if values == "int8":  # by half a step, of 127 to the largest of its column
        bound = bound + 1.01 / 254 * np.abs(h).sum(axis=1, keepdims=True) * np.abs(w).max(axis=0)
    assert (np.abs(run(model, x=x)[0] - before) <= bound).all()


@pytest.mark.parametrize(
    ("model", "options", "count", "says"),
    [
        (network(0.0), {}, 1, "of its inputs are 0 in all rows, less than the 60% asked for"),
        (network(-1.0), {}, 8, "less than the 60% asked for"),  # zeros of one row alone save nothing
        (network(-3.5), {}, 9, "it has 9 rows; zeros are skipped for up to 8"),
        (network(-3.5, activation="Tanh"), {}, 1, "no Relu makes its input"),
        (network(-3.5, extra="z = Neg(h)", outputs=", float[M,60] z"), {"threshold": 0.1}, 1, "something else reads"),
        (network(-3.5), {"min_speedup": 1e9}, 1, "less than the 1e+09x asked for"),
    ],
)
def test_refuses_with_a_reason(model: ir.Model, options: dict, count: int, says: str) -> None:
    report = apply(model, count, **options)
    assert not report.modified
    assert says in report.refusals[0].reason


@pytest.mark.parametrize("values", ["fp32", "bf16", "int8"])
def test_refuses_without_data_and_weights_that_are_not_finite(values: str) -> None:
    report = DynamicSparse()(network(-3.5))
    assert "no calibration data" in report.refusals[0].reason
    model = network(-3.5)
    spoiled = weight(model).copy()
    spoiled[3, 3] = np.inf
    set_constant(model, "w", spoiled)
    assert "NaN, an infinity" in apply(model, values=values).refusals[0].reason


def test_rows_that_are_not_finite_say_nothing_and_padding_does() -> None:
    def zeros(x: np.ndarray) -> float:
        model = network(-3.5)
        model.meta[FEEDS] = [{"x": x, "attention_mask": np.array([1, 1, 0])}]
        model.graph.inputs.append(ir.Value(name="attention_mask", type=ir.TensorType(ir.DataType.INT64)))
        (change,) = DynamicSparse(min_zeros=0)(model).changes  # type: ignore[attr-defined]
        assert change.facts["rows"] == 3
        return float(change.facts["zeros"])

    x = rows(3)
    spoiled = x.copy()
    spoiled[1] = np.nan
    assert zeros(spoiled) == zeros(x[[0, 0, 2]])
    padded = x.copy()
    padded[2] = 9  # the operator runs over it all the same: nothing is left to skip
    assert zeros(padded) == 0


def test_a_threshold_makes_more_zeros_and_is_asked_for() -> None:
    model, x = network(-0.5), rows(1)
    w = weight(model)
    before = run(model, x=x)[0]
    assert apply(network(-0.5), min_zeros=0.9).refusals
    report = apply(model, min_zeros=0.9, threshold=1.2)
    assert report.modified
    assert "ThresholdedRelu" in op_types(model)
    h = np.maximum(x - np.float32(0.5), 0)
    expected = np.where(h > 1.2, h, 0).astype(np.float64) @ w
    found = run(model, x=x)[0]
    assert (np.abs(found - expected) <= difference_bound(h, w)).all()
    assert (np.abs(found - before) <= 1.2 * np.abs(w).sum(axis=0) + difference_bound(h, w)).all()


def test_options_that_make_no_sense() -> None:
    for options in ({"values": "int4"}, {"threshold": -1.0}, {"min_zeros": 1.5}):
        with pytest.raises(UsageError, match="make no sense"):
            DynamicSparse(**options)  # type: ignore[arg-type]
