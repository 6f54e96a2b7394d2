"""Two runs give the same report, to the byte: an audit's JSON holds no time and nothing that a hash decides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sparsify import api, data
from sparsify.runtime import sessions
from tests import small

COMMAND = [sys.executable, "-m", "sparsify", "audit", "base.onnx", "other.onnx", "--data", "data.npz", "--layers"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two models that differ and their data."""
    small.save(small.mlp(), tmp_path, "base.onnx")
    small.save(small.mlp(sparsity=0.1), tmp_path, "other.onnx")
    small.save_feed(tmp_path)
    return tmp_path


def test_two_runs_give_the_same_bytes(folder: Path) -> None:
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [*COMMAND, "--budget", "cosine>=0.1", "--report", f"{seed}.json", "--report", f"{seed}.html"]
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    for suffix in (".json", ".html"):
        assert (folder / f"1{suffix}").read_bytes() == (folder / f"2{suffix}").read_bytes()


def test_the_report_says_what_it_takes_to_have_it_again(folder: Path) -> None:
    report = api.report_of(folder / "base.onnx", folder / "other.onnx", folder / "data.npz")
    assert report["data"] == {
        "source": str(folder / "data.npz"),
        "synthetic": False,
        "feeds": 1,
        "sha256": data.digest(data.load(folder / "data.npz")),
    }
    assert {"sparsify", "onnxruntime", "onnx", "numpy", "python"} <= report["versions"].keys()
    assert report["machine"]["isa_flags"]
    assert len(report["base"]["sha256"]) == len(report["candidate"]["sha256"]) == 64
    assert (report["drift"]["seed"], report["drift"]["threads"]) == (0, 1)
    assert not any("threads" in note for note in report["drift"]["notes"])
    json.dumps(report, allow_nan=False)


def test_more_threads_are_told(folder: Path) -> None:
    report = api.report_of(folder / "base.onnx", folder / "other.onnx", folder / "data.npz", threads=2)
    assert report["drift"]["threads"] == 2
    assert report["drift"]["notes"][0].startswith("run on 2 threads")


def test_the_sessions_of_an_audit_are_deterministic(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    create = sessions._create

    def spy(model: str | bytes, options: object, where: str) -> object:
        seen.append((options.use_deterministic_compute, options.intra_op_num_threads))
        return create(model, options, where)

    monkeypatch.setattr(sessions, "_create", spy)
    api.audit(folder / "base.onnx", folder / "other.onnx", [{"x": np.ones((4, 64), np.float32)}], layers=True)
    assert len(seen) > 2
    assert set(seen) == {(True, 1)}
