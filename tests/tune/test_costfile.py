"""Costs that are carried: with them a plan depends on nothing that this machine measures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sparsify
from sparsify import api, cost, modelio, tune
from sparsify.errors import InputError, UsageError
from sparsify.ops import Activation
from sparsify.patterns import Pattern
from sparsify.rewrite import Choice
from sparsify.tune import candidates, costfile
from sparsify.tune.candidates import Costs, Kind
from sparsify.tune.costfile import CostFile
from tests import small
from tests.tune.test_search import DATA, given_times

KIND = Kind((64, 96), 32, True, Activation.RELU, 1.0)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSIFY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cost, "_measured", {})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What another machine measured of the layers of `small.mlp`; here nothing is measured any more."""
    monkeypatch.setattr(candidates, "measure", given_times)
    api.profile(tmp_path / "costs.json", small.mlp(), data=DATA, threads=1)
    monkeypatch.setattr(candidates, "measure", None)
    return tmp_path / "costs.json"


def optimize(file: Path, **options: Any) -> sparsify.Result:
    return sparsify.optimize(small.mlp(), DATA, "cosine>=0.97", **{"costs": file, **options})


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    choices = {Choice("sparse-int8", Pattern(16, 64)): 0.5, Choice("stock-nbits4"): 2.0, Choice("stock-int8"): 1.0}
    CostFile(3, {KIND: Costs(1.5, choices)}, {"machine": {"cpu": "x"}, "versions": {}}).write(tmp_path / "c.json")
    found = costfile.read(tmp_path / "c.json")
    assert (found.threads, found.costs) == (3, {KIND: Costs(1.5, choices)})


def test_costs_data_and_seed_decide(file: Path) -> None:
    first, second = optimize(file), optimize(file)
    assert first.changed
    assert first.report["threads"] == 1
    assert modelio.serialize(first.model) == modelio.serialize(second.model)
    assert [t["plan"] for t in first.report["search"]["trials"]] == [
        t["plan"] for t in second.report["search"]["trials"]
    ]


def test_other_costs_make_another_plan(file: Path) -> None:
    before = optimize(file).report["search"]["trials"]
    found = json.loads(file.read_text())
    for layer in found["layers"]:
        layer["ms"] = {choice: ms / (100 if choice == "stock-nbits8" else 1) for choice, ms in layer["ms"].items()}
    file.write_text(json.dumps(found))
    after = optimize(file).report["search"]["trials"]
    assert set(after[0]["plan"].values()) == {"stock-nbits8"}
    assert before[0]["plan"] != after[0]["plan"]


def test_the_stock_target_takes_only_stock_forms_from_a_file(file: Path) -> None:
    result = optimize(file, target="stock")
    forms = {a["choice"] for row in result.report["nodes"] for a in row["alternatives"]}
    assert forms <= {"left", "stock-int8", "stock-nbits4", "stock-nbits8"}


def test_layers_that_are_not_in_it_are_refused_with_what_to_do(file: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)no costs of a layer of 64x96, 7 rows.*doctor --profile"):
        optimize(file, rows=7)


def test_other_threads_are_refused(file: Path) -> None:
    with pytest.raises(UsageError, match="those of 1 threads, not 2"):
        optimize(file, threads=2)


def test_costs_without_a_search_are_refused(file: Path) -> None:
    with pytest.raises(UsageError, match="for a search"):
        sparsify.optimize(small.mlp(), DATA, costs=file)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"schema": "sparsify/costs-1"}',
        '{"schema": "sparsify/costs-1", "threads": 1, "layers": [{}]}',
        '{"schema": "sparsify/costs-1", "threads": 1, "layers": 3}',
        '{"schema": "sparsify/costs-1", "threads": 1, "layers": [{"shape": [1, 2], "rows": 1, "biased": true, '
        '"activation": "", "density": 1, "dense_ms": 1, "ms": {"stock-int9": 1}}]}',
        '{"schema": "sparsify/costs-1", "threads": 1, "layers": [{"shape": [1, 2], "rows": 1, "biased": true, '
        '"activation": "", "density": 1, "dense_ms": NaN, "ms": {}}]}',
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(InputError, match=r"c\.json"):
        costfile.read(tmp_path / "c.json")
    with pytest.raises(InputError, match="cannot be read"):
        costfile.read(tmp_path / "absent.json")


def test_a_profile_of_shapes_is_measured_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_RUNS", 1)
    monkeypatch.setattr(candidates, "choices", lambda *_: (Choice("stock-int8"), Choice("sparse-int8", Pattern(8, 64))))
    report = api.profile(tmp_path / "c.json", shapes=[(64, 16)], rows=4, threads=1)
    found = costfile.read(tmp_path / "c.json")
    assert [(k.shape, k.rows, k.biased) for k in found.costs] == [((64, 16), 4, False), ((64, 16), 4, True)]
    assert all(len(costs.by_choice) == 2 for costs in found.costs.values())
    assert found.place["machine"] == report["machine"]
    with pytest.raises(UsageError, match="nothing to measure"):
        api.profile(tmp_path / "c.json")


def test_size_is_weighed_and_not_timed(file: Path) -> None:
    found = sparsify.optimize(small.mlp(), DATA, "cosine>=0.97", goal="size", threads=1)
    assert found.changed
    assert found.report["size"]["candidate"] < found.report["size"]["base"]
    for row in found.report["nodes"]:
        assert row["alternatives"][0]["bytes"] >= row["shape"][0] * row["shape"][1] * 4
        assert all(a["bytes"] < row["alternatives"][0]["bytes"] for a in row["alternatives"][1:])
    trials = found.report["search"]["trials"]
    assert all(t["saved_bytes"] > 0 for t in trials)


def test_a_plan_weighs_what_was_predicted() -> None:
    model = modelio.load(small.mlp())
    prepared = tune.problem(model, DATA[:6], tune.Settings(goal="size", effort=0))
    for name, options in prepared.by_name.items():
        for option in options[1::3]:
            changed = modelio.load(small.mlp())
            tune.build(changed, tune.pipeline("portable"), {name: option.choice}, DATA[:6])
            before, after = (
                sum(v.const_value.nbytes for v in m.graph.initializers.values() if v.const_value is not None)
                for m in (model, changed)
            )
            # Encodings depend on where the zeros are; here they are where another solver than magnitude put them.
            assert before - after == pytest.approx(options[0].cost - option.cost, rel=0.05, abs=600)
