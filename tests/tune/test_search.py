"""The search, with times that are given instead of measured: what it chooses follows from them alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import sparsify
from sparsify import modelio, sensitivity, tune
from sparsify.api import facts
from sparsify.audit import audit
from sparsify.budget import parse
from sparsify.cli import main
from sparsify.errors import UsageError
from sparsify.graph import Linear
from sparsify.rewrite import Choice
from sparsify.tune import candidates, options, trials
from sparsify.tune.candidates import Costs, Kind
from sparsify.tune.search import choose
from sparsify.tune.trials import Trial
from tests import small

FASTER = {
    **{side: {"median_ms": ms, "p25_ms": ms, "p75_ms": ms, "runs": 1} for side, ms in (("base", 2), ("candidate", 1))},
    "speedup": 2.0,
    "measured_on": "data",
}
DATA = [small.feed(seed, 32) for seed in range(8)]


def given_times(
    layers: Sequence[Linear], found: Sequence[Kind], tried: Sequence[Choice], **_: Any
) -> dict[Kind, Costs]:
    """In proportion to the weights that are left, int8 at half of it."""

    def ms(kind: Kind, choice: Choice) -> float:
        density = 1.0 if choice.pattern is None else 1 - (choice.pattern.sparsity or 0)
        if choice.pattern is None:
            density = kind.density if choice.format.startswith("sparse") else 1.0
        factor = {"stock-int8": 0.5, "sparse-int8": 0.5, "stock-nbits8": 0.75, "stock-nbits4": 0.7}
        return density * kind.shape[0] * kind.shape[1] * factor.get(choice.format, 1)

    return {kind: Costs(kind.shape[0] * kind.shape[1], {c: ms(kind, c) for c in tried}) for kind in found}


@pytest.fixture(autouse=True)
def _times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "measure", given_times)


def search(budget: str, target: str = "portable", effort: int = 1) -> tune.Found:
    model = modelio.load(small.mlp())
    return tune.search(model, DATA[:6], DATA[6:], [parse(budget)], tune.Settings(target=target, effort=effort))


def test_what_it_returns_keeps_the_budget_on_the_samples_that_checked_it() -> None:
    found = search("cosine>=0.97")
    assert found.plan
    best = next(t for t in found.trials if t.plan == found.plan)
    assert best.passed
    assert best.saved == max(t.saved for t in found.trials if t.passed)
    model = modelio.load(small.mlp())
    changed = modelio.load(small.mlp())
    tune.build(changed, tune.pipeline("portable"), found.plan, DATA[:6])
    assert audit(model, changed, DATA[6:], budgets=["cosine>=0.97"])


def test_a_wider_budget_saves_more_time() -> None:
    saved = []
    for budget in ("cosine>=0.9999", "cosine>=0.99", "cosine>=0.8"):
        found = search(budget)
        saved.append(max(t.saved for t in found.trials if t.passed))
    assert saved == sorted(saved)
    assert saved[0] < saved[-1]


def test_a_budget_that_nothing_keeps_leaves_no_plan_and_tells_how_far_off_it_was() -> None:
    found = search("max_abs<=1e-9")
    assert found.plan == {}
    assert found.trials
    assert all(not trial.passed and trial.usage > 1 for trial in found.trials)


def test_later_plans_name_the_layers_that_were_stepped_down() -> None:
    found = search("sqnr_db>=15", effort=2)
    after = [b for a, b in zip(found.trials, found.trials[1:], strict=False) if not a.passed and b.limit < a.limit]
    for trial in after:
        assert trial.stepped_down
        assert set(trial.stepped_down) <= set(trial.plan)


def test_checks_that_see_no_drift_do_not_outweigh_the_drifts_that_were_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trials, "audit", lambda base, _, *rest, **more: audit(base, base, *rest, **more))
    found = search("relative_l2<=0.1")
    assert found.trials
    assert all(trial.passed and trial.usage == 0 for trial in found.trials)
    options = found.problem.by_name
    for trial in found.trials:
        drift = sum(next(o.drift for o in options[name] if o.choice == c) for name, c in trial.plan.items())
        assert drift <= 2 * 0.1**2


def test_the_stock_target_uses_nothing_of_ours() -> None:
    found = search("cosine>=0.9", target="stock")
    assert {choice.format for choice in found.plan.values()} == {"stock-int8"}
    tried = {o.choice.format for of_layer in found.problem.options for o in of_layer[1:]}
    assert tried == {"stock-int8", "stock-nbits4", "stock-nbits8"}


def test_weights_of_few_bits_are_candidates_that_a_plan_can_carry_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "choices", lambda *_: (Choice("stock-nbits8"), Choice("stock-nbits4")))
    monkeypatch.setattr(facts, "latency", lambda *_, **__: FASTER)
    result = sparsify.optimize(small.mlp(), DATA, "cosine>=0.99", threads=1)
    assert result.changed
    bits = {a.name: a.value for n in result.model.graph if n.op_type == "MatMulNBits" for a in n.attributes.values()}
    assert bits["bits"] in (4, 8)
    assert "stock-nbits" in result.report["pipeline"]


def test_a_layer_that_is_sparse_already_may_lose_nothing() -> None:
    model = modelio.load(small.mlp(sparsity=0.8))
    found = tune.search(model, DATA[:6], DATA[6:], [parse("max_abs<=1e-4")], tune.Settings())
    assert all(any(o.choice == Choice("sparse-fp32") and o.drift == 0 for o in x) for x in found.problem.options)
    assert found.plan


@pytest.mark.parametrize("target", ["portable", "stock"])
def test_inputs_that_stand_out_are_smoothed_before_drift_is_measured(
    monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr(facts, "latency", lambda *_, **__: FASTER)
    int8 = Choice("stock-int8" if target == "stock" else "sparse-int8")

    def drift() -> float:
        found = tune.problem(modelio.load(small.normalised()), DATA[:6], tune.Settings(target=target))
        return next(o.drift for o in found.options[0] if o.choice == int8)

    result = sparsify.optimize(small.normalised(), DATA, "cosine>=0.99", threads=1, target=target)
    assert result.accepted
    first, second = result.report["nodes"]
    assert "inputs divided" in first["refined"][0]
    assert not any("divided" in what for what in second["refined"])
    smoothed = drift()
    monkeypatch.setattr(options, "SMOOTH", "cleanup")
    assert smoothed < drift() / 2


def test_smoothing_alone_is_no_reason_to_change_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "measure", lambda layers, found, tried, **_: {k: Costs(1.0, {}) for k in found})
    model = modelio.load(small.normalised())
    result = sparsify.optimize(model, DATA, "cosine>=0.99", threads=1)
    assert (result.accepted, result.changed) == (True, False)
    assert modelio.serialize(result.model) == modelio.serialize(model)


def closeness(base: dict[str, Any], candidate: dict[str, Any], _: dict[str, Any]) -> float:
    """5 less the share that answers are off by: the root of what drifts add up in, and not 1 at its best."""
    return 5 - float(np.abs(candidate["y"] - base["y"]).mean() / np.abs(base["y"]).mean())


def test_a_metric_of_somebodys_own_is_used_up_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "latency", lambda *_, **__: FASTER)
    result = sparsify.optimize(small.mlp(), DATA, "closeness>=4.7", metrics=[closeness], threads=1, effort=2)
    assert result.accepted
    trials = result.report["search"]["trials"]
    # Nothing says how much drift that budget allows: the first plan prunes nothing.
    assert not any(":64" in choice for choice in trials[0]["plan"].values())
    assert any(":64" in choice for choice in trials[-1]["plan"].values())
    assert max(trial["usage"] for trial in trials if trial["passed"]) > 0.5
    again = sparsify.audit(small.mlp(), result.model, DATA, "closeness>=4.6", metrics=[closeness])
    assert again


def test_a_metric_needs_data() -> None:
    with pytest.raises(UsageError, match="a metric is measured on data"):
        sparsify.optimize(small.mlp(), metrics=[closeness])


def test_the_command_line_takes_a_metric_of_somebodys_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "latency", lambda *_, **__: FASTER)
    np.savez(tmp_path / "data.npz", **small.feed(rows=64))
    name = f"{__name__}:closeness"
    command = [
        "optimize",
        str(small.save(small.mlp(), tmp_path)),
        "--data",
        str(tmp_path / "data.npz"),
        "--threads",
        "1",
    ]
    assert main([*command, "--budget", "closeness>=4.9", "--metric", name, "-q"]) == 0
    curve = ["--frontier", str(tmp_path / "curve.json"), "--effort", "0"]
    assert main([*command, "--budget", "closeness>=4.9", "--metric", name, "-q", *curve]) == 0
    assert "closeness" in (tmp_path / "curve.json").read_text()


def test_the_same_times_and_seed_give_the_same_plan() -> None:
    assert search("cosine>=0.97").plan == search("cosine>=0.97").plan


def test_optimize_searches_when_there_is_a_budget_and_no_method() -> None:
    result = sparsify.optimize(small.mlp(), DATA, "cosine>=0.97", threads=1)
    assert result.accepted
    trials = result.report["search"]["trials"]
    assert any(trial["passed"] for trial in trials)
    for row in result.report["nodes"]:
        names = [a["choice"] for a in row["alternatives"]]
        assert names[0] == "left"
        assert len(names) > 1
        assert row["decision"] == "left" or row["drift_share"] > 0


def test_optimize_refuses_a_budget_that_no_plan_keeps_and_names_the_closest_point() -> None:
    model = modelio.load(small.mlp())
    result = sparsify.optimize(model, DATA, "max_abs<=1e-9", threads=1)
    assert (result.accepted, result.changed) == (False, False)
    assert "plans kept the budget, the closest: `max_abs` of `y` is at most" in result.reason
    assert modelio.serialize(result.model) == modelio.serialize(model)


def test_the_last_resort_is_the_single_option_that_drifts_least() -> None:
    found = search("max_abs<=1e-9")
    least = min(o.drift for of_layer in found.problem.options for o in of_layer[1:])
    taken = [name for name, choice in found.trials[-1].plan.items() if choice.format]
    assert len(taken) == 1
    assert found.trials[-1].limit == least


def test_asked_for_its_best_effort_it_makes_the_closest_model_and_still_does_not_accept_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(facts, "latency", lambda *_, **__: FASTER)
    budgets = ["max_abs<=1e-9", "cosine>=0.5"]
    result = sparsify.optimize(small.mlp(), DATA, budgets, threads=1, best_effort=True, target="stock")
    assert (result.accepted, result.changed) == (False, True)
    closest = min(result.report["search"]["trials"], key=lambda t: t["usage"])
    assert {row["name"]: row["format"] or "left" for row in result.report["nodes"]} == closest["plan"]


def test_the_command_line_writes_nothing_then_unless_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "latency", lambda *_, **__: FASTER)
    model, data = small.save(small.mlp(), tmp_path), tmp_path / "data"
    data.mkdir()
    for number, feed in enumerate(DATA):
        small.save_feed(data, f"{number}.npz", **feed)
    out = tmp_path / "out.onnx"
    command = ["optimize", *map(str, (model, "-o", out, "--data", data)), "--budget", "max_abs<=1e-9", "--threads", "1"]
    assert main(command) == 1
    assert "the closest: `max_abs` of `y` is at most" in capsys.readouterr().err
    assert not out.exists()
    assert main([*command, "--best-effort"]) == 1
    assert f"wrote {out}" in capsys.readouterr().err
    onnx.checker.check_model(str(out))


def test_memory_reaches_the_search_and_its_pruning(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = sensitivity.measure
    monkeypatch.setattr(sensitivity, "measure", lambda *a, **k: seen.append(k["memory"]) or real(*a, **k))
    result = sparsify.optimize(small.mlp(), DATA, "cosine>=0.5", threads=1, memory=7)
    assert seen == [7 * 2**20]
    assert "prune{min_size=1,memory=7}" in result.report["pipeline"]


def test_a_plan_is_carried_out_as_it_was_chosen() -> None:
    model = modelio.load(small.mlp())
    layers = [x.name for x in sparsify.graph.linear_layers(model)]
    plan = {layers[0]: Choice("sparse-int8", candidates.Pattern(16, 64)), layers[1]: Choice()}
    tune.build(model, tune.pipeline("portable"), plan, DATA[:2])
    (node,) = [n for n in model.graph if n.domain == "ai.sparsify"]
    assert isinstance(node, ir.Node)
    values = next(v.const_value.numpy() for v in node.inputs if v.const_value is not None and v.name.endswith("values"))
    assert np.count_nonzero(values) <= small.INPUTS * small.HIDDEN // 4
    assert [n.op_type for n in model.graph if n.domain == ""] == ["Gemm"]


@pytest.mark.parametrize(
    ("saved", "goal", "chosen"),
    [
        ((10.0, 10.05, 12.0), "latency", 0),  # the last broke the budget, the first two take the same time
        ((10.0, 10.05, 12.0), "size", 1),
        ((10.0, 10.2, 12.0), "latency", 1),
    ],
)
def test_of_plans_that_take_the_same_time_the_one_that_drifts_less_is_chosen(
    saved: tuple[float, ...], goal: str, chosen: int
) -> None:
    usages = (0.5, 0.9, 1.1)
    made = tuple(Trial(1.0, {}, s, u, u < 1, (), ()) for s, u in zip(saved, usages, strict=True))
    assert choose(made, goal) is made[chosen]
    assert choose(made[2:], goal) is None
