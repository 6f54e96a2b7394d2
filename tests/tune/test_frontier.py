"""The whole curve: what is predicted, what is built, and what is written."""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

import pytest

from sparsify import api
from sparsify.cli import main
from sparsify.tune import candidates
from tests import small
from tests.tune.test_search import DATA, given_times


@pytest.fixture(autouse=True)
def _times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "measure", given_times)
    monkeypatch.setenv("SPARSIFY_CACHE", str(tmp_path / "cache"))


def curve(**options: Any) -> dict[str, Any]:
    return api.curve(small.mlp(), DATA, threads=1, **options)


def test_cost_falls_and_drift_rises_along_the_curve() -> None:
    found = curve(effort=0)
    points = found["points"]
    assert len(points) > 3
    assert points[0]["drift"] == 0
    assert set(points[0]["plan"].values()) == {"left"}
    for a, b in itertools.pairwise(points):
        assert b["ms"] < a["ms"]
        assert b["drift"] >= a["drift"]
    assert len(found["built"]) == 2
    assert found["built"][-1]["plan"] == points[-1]["plan"]
    for point in found["built"]:
        assert point["latency"]["speedup"] > 0
        assert point["outputs"]["outputs"]["y"]["metrics"]["cosine"]["low"] <= 1
    drifts = [point["outputs"]["outputs"]["y"]["metrics"]["relative_l2"]["value"] for point in found["built"]]
    assert drifts == sorted(drifts)


def test_a_frontier_of_sizes_carries_bytes() -> None:
    found = curve(effort=0, goal="size", budget="cosine>=0.9")
    assert found["unit"] == "bytes"
    assert [p["bytes"] for p in found["points"]] == sorted((p["bytes"] for p in found["points"]), reverse=True)
    assert found["built"][0]["size"]["ratio"] > 1
    assert found["built"][0]["outputs"]["verdicts"]


def test_the_command_line_writes_table_json_and_drawing_and_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = small.save(small.mlp(), tmp_path), tmp_path / "data"
    data.mkdir()
    for number, feed in enumerate(DATA):
        small.save_feed(data, f"{number}.npz", **feed)
    command = ["optimize", str(model), "--data", str(data), "--threads", "1", "--effort", "0", "--frontier"]
    before = {p.name for p in tmp_path.iterdir()} | {"cache"}
    reports = [o for suffix in ("json", "md", "html") for o in ("--report", str(tmp_path / f"r.{suffix}"))]
    assert main([*command, str(tmp_path / "curve.svg"), *reports]) == 0
    assert "Predicted, of the linear layers" in capsys.readouterr().out
    assert {p.name for p in tmp_path.iterdir()} - before == {"curve.svg", "r.json", "r.md", "r.html"}
    drawing = xml.parse(tmp_path / "curve.svg").getroot()
    found = json.loads((tmp_path / "r.json").read_text())
    space = "{http://www.w3.org/2000/svg}"
    (line,) = drawing.iter(f"{space}polyline")
    assert len(line.get("points", "").split()) == len(found["points"])
    assert len([*drawing.iter(f"{space}circle")]) == len(found["built"])
    for x, y in (map(float, point.split(",")) for point in line.get("points", "").split()):
        assert 0 <= x <= 640
        assert 0 <= y <= 400
    assert main([*command, str(tmp_path / "curve.png")]) == 2
    assert main([*command, str(tmp_path / "curve.svg"), "-O", "2"]) == 2
    assert main(["optimize", str(model), "--frontier", str(tmp_path / "curve.svg")]) == 2


def test_only_a_frontier_is_drawn(tmp_path: Path) -> None:
    assert main(["inspect", str(small.save(small.mlp(), tmp_path)), "--report", str(tmp_path / "r.svg")]) == 2
