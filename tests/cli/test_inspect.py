"""sparsify inspect"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import small
from tests.cli import Run


def test_inspect(run: Run, tmp_path: Path) -> None:
    model = small.save(small.mlp(sparsity=0.9), tmp_path)
    status, out, _ = run("inspect", model, "--rows", 4, "--threads", 1, "--report", tmp_path / "r.json")
    assert status == 0
    assert f"{small.INPUTS}x{small.HIDDEN}" in out
    rows = json.loads((tmp_path / "r.json").read_text())["nodes"]
    assert [row["zeros"] for row in rows] == pytest.approx([0.9, 0.9], abs=0.03)  # three sigma of 3072 draws: 0.016
    assert all(row["dense_ms"] > 0 for row in rows)
    # A gain is told of what would be rewritten, and a reason of what would be left.
    assert all(bool(row["speedup_o2"] and row["speedup_o3"]) != bool(row["note"]) for row in rows)


def test_inspect_tells_what_the_model_would_miss(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    status, out, _ = run(
        "inspect", model, "--sensitivity", "--data", data, "--memory", 1, "--threads", 1, "--report", report
    )
    assert status == 0
    assert "Sensitivity" in out
    assert "█" in out
    rows = json.loads(report.read_text())["sensitivity"]
    assert all(row["sparsities"] == [0.5, 0.75, 0.875] for row in rows)
    assert all(0 < row["drifts"][0] < row["drifts"][-1] for row in rows)
