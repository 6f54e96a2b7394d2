"""sparsify audit"""

from __future__ import annotations

from pathlib import Path

from tests import small
from tests.cli import Run


def test_audit_says_no(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    other = small.save(small.mlp(seed=7), tmp_path, "other.onnx")
    status, out, err = run("audit", model, other, "--data", data, "--budget", "cosine>=0.99", "--layers")
    assert status == 1
    assert "BROKEN" in out
    assert "over budget" in err


def test_audit_says_yes(run: Run, model: Path, data: Path) -> None:
    status, out, err = run("audit", model, model, "--data", data, "--budget", "max_abs<=0")
    assert (status, err) == (0, "")
    assert "holds" in out
