"""sparsify audit as a gate: budgets from files, baselines, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests import small
from tests.cli import Run


def verdicts(report: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(report.read_text())["drift"]["verdicts"]
    return found


def test_budgets_from_a_file(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "budget.toml"
    file.write_text('[[budget]]\nmetric = "sqnr_db"\noutput = "y"\nat_least = 60\nreason = "as agreed"')
    other = small.save(small.mlp(seed=7), tmp_path, "other.onnx")
    status, _, _ = run("audit", model, other, "--data", data, "--budget", file, "--report", tmp_path / "r.json")
    assert status == 1
    (verdict,) = verdicts(tmp_path / "r.json")
    assert (verdict["budget"], verdict["reason"], verdict["passed"]) == ("sqnr_db@y>=60.0", "as agreed", False)
