"""A reader that stops reading, as `head` does, costs nobody the result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import small


def run_unread(*arguments: object) -> None:
    """Run the command line with a standard output that nobody reads."""
    command = [sys.executable, "-m", "sparsify", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.close()
    process.wait(timeout=120)


def test_the_model_is_written_though_nobody_reads_the_tables(tmp_path: Path) -> None:
    model, out = small.save(small.mlp(), tmp_path), tmp_path / "out.onnx"
    run_unread("optimize", model, "--passes", "cleanup,sparse-int8", "-o", out)
    assert out.exists()


def test_the_report_is_written_though_nobody_reads_the_tables(tmp_path: Path) -> None:
    model, report = small.save(small.mlp(), tmp_path), tmp_path / "report.json"
    run_unread("inspect", model, "--report", report)
    assert report.exists()
