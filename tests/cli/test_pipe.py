"""A reader that stops reading, as `head` does, costs nobody the result; nor does a disk without room."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparsify.cli import UNREAD
from sparsify.errors import ExitStatus
from tests import small

FULL = Path("/dev/full")


def run_unread(*arguments: object, stderr: int = subprocess.PIPE) -> str:
    """Run the command line with a standard output that nobody reads; what it says on stderr."""
    command = [sys.executable, "-m", "sparsify", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert process.stdout is not None
    process.stdout.close()
    said = process.stderr.read() if process.stderr else ""
    assert process.wait(timeout=120) == UNREAD
    return said


@pytest.mark.parametrize("arguments", ["--version", "--help", "passes", "passes prune"])
def test_it_ends_without_a_word(arguments: str) -> None:
    assert run_unread(*arguments.split()) == ""


def test_nor_is_an_error_one_that_nobody_can_read(tmp_path: Path) -> None:
    run_unread("inspect", tmp_path / "none.onnx", stderr=subprocess.STDOUT)


def test_the_model_is_written_though_nobody_reads_the_tables(tmp_path: Path) -> None:
    model, out = small.save(small.mlp(), tmp_path), tmp_path / "out.onnx"
    assert run_unread("optimize", model, "--passes", "cleanup,sparse-int8", "-o", out) == ""
    assert out.exists()


def test_the_report_is_written_though_nobody_reads_the_tables(tmp_path: Path) -> None:
    model, report = small.save(small.mlp(), tmp_path), tmp_path / "report.json"
    assert run_unread("inspect", model, "--report", report) == ""
    assert report.exists()


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])  # fails when all is flushed, or at the first word
@pytest.mark.parametrize("arguments", ["--version", "--help", "passes", "optimize"])
def test_no_room_for_the_tables_is_no_bug_of_ours(arguments: str, unbuffered: str, tmp_path: Path) -> None:
    given, out = arguments.split(), tmp_path / "out.onnx"
    if arguments == "optimize":
        model = small.save(small.mlp(), tmp_path)
        given += [str(model), "--passes", "cleanup,sparse-int8", "--quiet", "-o", str(out)]
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sparsify", *given],
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == ExitStatus.USAGE
    assert done.stderr.startswith("error: cannot write: No space left on device\n\nhint: make room")
    assert out.exists() == (arguments == "optimize")
