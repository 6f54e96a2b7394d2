"""sparsify audit"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsify.budget import METRICS
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


def test_kinds_labels_and_metrics_of_ones_own(
    run: Run, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = small.save(small.mlp(sparsity=0.1), tmp_path, "other.onnx")
    np.savetxt(tmp_path / "labels.txt", np.arange(small.SAMPLES), fmt="%d")
    text = "def mine(base, candidate, feed):\n    return abs(candidate['y']).max()\n"
    (tmp_path / "my_cli_metrics.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    mine = ("--metric", "my_cli_metrics:mine", "--budget", "mine>=0")
    status, out, err = run("audit", model, other, "--data", data, "--kind", "y=logits", "--labels", "labels.txt", *mine)
    METRICS.pop("mine")
    assert (status, err) == (0, "")
    for words in ("kl_divergence", "accuracy", "McNemar", "mine", "holds"):
        assert words in out
    for wrong, words in (
        (("--kind", "y"), "a kind is OUTPUT=KIND"),
        (("--kind", "y=logit"), "there is no kind `logit`"),
        (("--metric", "my_cli_metrics:yours"), "has no function `yours`"),
    ):
        status, out, err = run("audit", model, other, "--data", data, *wrong)
        assert (status, out) == (2, "")
        assert words in err


def test_too_few_samples_are_no_yes(run: Run, model: Path, tmp_path: Path) -> None:
    other = small.save(small.mlp(sparsity=0.001), tmp_path, "other.onnx")
    few = small.save_feed(tmp_path, "few.npz", x=small.feed(rows=3)["x"])
    status, out, err = run("audit", model, other, "--data", few, "--kind", "y=logits", "--budget", "flips<=0.01")
    assert status == 1
    assert "UNDECIDED" in out
    assert "error: undecided: `flips` of `y` is 0, allowed <= 0.01, but 3 samples can only show" in err
    assert "hint: judge on more samples" in err
