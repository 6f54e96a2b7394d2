"""sparsify bench"""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli import Run


def test_bench(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    status, out, _ = run("bench", model, model, "--data", data, "--threads", 1, "--report", tmp_path / "r.json")
    assert status == 0
    assert "1.00x" in out
    found = json.loads((tmp_path / "r.json").read_text())
    assert [m["size_bytes"] for m in found["models"]] == [model.stat().st_size] * 2
