"""How far the model drifts for each weight, and the plans that follow."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from sparsify import modelio, parallel, runtime, sensitivity
from sparsify.errors import UsageError
from sparsify.graph import linear_layers
from sparsify.passes.prune import Prune
from sparsify.patterns import Pattern
from sparsify.pruning import FEEDS
from tests.running import set_constant

WIDTH = 64
HALF = (Pattern(32, 64), 0.5)
# What goes through `faint` hardly counts in y; what goes through `loud` is most of it.
MODEL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[B,64] x) => (float[B,64] y, int64[2] shape)
<float[1,1] loud = {0}, float[1,1] faint = {0}, float small = {0.1}>
{ a = MatMul(x, loud)
  b = MatMul(x, faint)
  c = Mul(b, small)
  y = Add(a, c)
  shape = Shape(x) }"""


@pytest.fixture
def model(rng: np.random.Generator) -> ir.Model:
    found = ir.from_onnx_text(MODEL)
    for name in ("loud", "faint"):
        set_constant(found, name, rng.standard_normal((WIDTH, WIDTH)).astype(np.float32))
    return found


@pytest.fixture
def feeds(rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
    return [{"x": rng.standard_normal((40, WIDTH)).astype(np.float32)} for _ in range(8)]


def measured(model: ir.Model, feeds: list[dict[str, np.ndarray]], memory: int = 2**20) -> list[sensitivity.Sensitivity]:
    return sensitivity.measure(model, linear_layers(model), feeds, sensitivity.tried(HALF), memory=memory)


def test_a_trial_is_the_relative_error_of_the_model_with_the_other_weight(model, feeds):
    changed = np.zeros((WIDTH, WIDTH), np.float32)
    trials = runtime.Trials(model, feeds, ["faint"], threads=1)
    loud, faint = (model.graph.initializers[n].const_value.numpy().astype(np.float64) for n in ("loud", "faint"))
    x = np.concatenate([f["x"] for f in feeds]).astype(np.float64)
    exact = np.square(x @ faint * 0.1).sum() / np.square(x @ (loud + 0.1 * faint)).sum()
    # Sums of 64 float32 products of size 1, against outputs of size 8: 64 * 2^-24 of them at most, squares twice that.
    assert trials.drift({"faint": changed}) == pytest.approx(exact, rel=2 * 64 * 2.0**-24 / exact)
    assert trials.drift({}) == 0


def test_outputs_that_are_no_numbers_any_more_are_the_worst(model, feeds):
    trials = runtime.Trials(model, feeds[:1], ["faint"], threads=1)
    assert trials.drift({"faint": np.full((WIDTH, WIDTH), np.nan, np.float32)}) == runtime.trials.WORST


def test_padding_does_not_count(rng):
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[B,T,2] x, int64[B,T] attention_mask) => (float[B,T,2] y) <float[2,2] w = {1,0,0,1}>
        { y = MatMul(x, w) }""")
    x = np.ones((1, 2, 2), np.float32)
    x[0, 1, 0] = 1e3  # what the second weight row would make large
    feed = {"x": x, "attention_mask": np.array([[1, 0]])}
    changed = np.array([[1, 0], [0, 0.5]], np.float32)
    assert runtime.Trials(model, [feed], ["w"], threads=1).drift({"w": changed}) == pytest.approx(0.125)


def test_the_layer_that_counts_is_found_and_spared(model, feeds):
    found = measured(model, feeds)
    assert [one.source.name for one in found] == ["loud", "faint"]
    assert all(drift == sorted(drift) for drift in (list(one.curve.drifts) for one in found))
    assert found[0].curve.drifts[1] > 10 * found[1].curve.drifts[1]
    plan = sensitivity.plan(found, HALF)
    loud, faint = (plan[one.source] for one in found)
    assert loud[1] < 0.5 < faint[1]
    assert loud[1] + faint[1] >= 1
    assert loud[0].sparsity == loud[1]


def test_little_memory_gives_the_same_numbers(model, feeds):
    assert [one.curve for one in measured(model, feeds)] == [one.curve for one in measured(model, feeds, memory=1)]


def test_a_limit_instead_of_an_average(model, feeds):
    found = measured(model, feeds)
    loose, tight = (sensitivity.plan(found, HALF, limit) for limit in (1.0, 0.05))
    assert sum(s for _, s in tight.values()) < sum(s for _, s in loose.values())
    assert sum(one.curve.at(tight[one.source][1]) for one in found) <= 0.05


def test_the_pass_prunes_unevenly_to_the_same_average_and_drifts_less(model, feeds):
    drifts, zeros = {}, {}
    for uneven in (False, True):
        changed = modelio.load(model)
        changed.meta[FEEDS] = feeds
        report = Prune(min_size=1, uneven=uneven)(changed)
        zeros[uneven] = np.mean([c.facts["sparsity"] for c in report.changes])
        weights = {n: changed.graph.initializers[n].const_value.numpy() for n in ("loud", "faint")}
        drifts[uneven] = runtime.Trials(model, feeds, weights, threads=1).drift(weights)
    assert zeros[True] >= zeros[False] - 1e-9
    assert drifts[True] < drifts[False]


@pytest.mark.parametrize("goal", [HALF, (Pattern(2, 4), 0.5), (Pattern(1, 4), 0.75), (Pattern(), 0.9)], ids=str)
def test_what_is_aimed_at_may_be_chosen_and_all_choices_are_within_what_was_tried(goal):
    tried, choices = sensitivity.tried(goal), sensitivity.choices(goal)
    assert goal in choices
    assert tried[0][1] <= choices[0][1] < choices[-1][1] <= tried[-1][1]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"drift": 0.1}, "has no use"),
        ({"drift": -1.0, "uneven": True}, "negative"),
        ({"uneven": True, "method": "magnitude"}, "needs data"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, what):
    with pytest.raises(UsageError, match=what):
        Prune(**options)


CHAIN = """<ir_version: 8, opset_import: ["" : 17]>
g (float[B,64] x) => (float[B,64] y)
<float[1,1] w0 = {0}, float[1,1] w1 = {0}, float[1,1] w2 = {0}, float[1,1] w3 = {0}>
{ a = MatMul(x, w0) b = Relu(a) c = MatMul(b, w1) d = Relu(c) e = MatMul(d, w2) f = Relu(e) y = MatMul(f, w3) }"""


def test_any_number_of_workers_finds_the_same(rng, feeds, monkeypatch):
    model = ir.from_onnx_text(CHAIN)
    for i in range(4):
        set_constant(model, f"w{i}", rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 8)
    found = []
    for count in (1, 4):
        monkeypatch.setattr(parallel, "threads", lambda count=count: count)
        found.append([one.curve for one in measured(model, feeds)])
    assert found[0] == found[1]
    assert len(found[0]) == 4
