"""The command line as a whole: bugs, interruption, help, and what a shell sees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparsify import api
from tests.cli import INT8, Run


def test_a_bug_of_ours_is_one_line_and_says_how_to_report_it(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("the impossible\nhappened")

    monkeypatch.setattr(api, "optimize", fails)
    status, _, err = run("optimize", model)
    assert status == 4
    assert err.startswith("error: RuntimeError: the impossible\n\nhint: this is a bug of ours")
    assert "Traceback" not in err
    for command in (["--debug", "optimize", model], ["optimize", model, "--debug"]):
        status, _, err = run(*command)
        assert status == 4
        assert "Traceback" in err


def test_interrupted(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "optimize", interrupted)
    status, out, err = run("optimize", model)
    assert (status, out, err) == (130, "", "interrupted\n")
    assert [p.name for p in model.parent.iterdir()] == ["model.onnx"]


def test_no_command_is_a_call_for_help(run: Run) -> None:
    status, out, _ = run()
    assert status == 0
    assert "optimize" in out


def test_what_needs_no_model_loads_no_library() -> None:
    """Help must not take seconds: onnx, onnxruntime and rich are imported by what uses them."""
    code = (
        "import sys; from sparsify.cli import main; main(['optimize', '--help']);"
        "print([m for m in ('numpy', 'onnx', 'onnx_ir', 'onnxruntime', 'onnxscript', 'scipy') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_as_a_process(model: Path) -> None:
    """What a shell sees: nothing in colour, no bar, stdout and stderr apart."""
    command = [sys.executable, "-m", "sparsify"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, check=False)

    done = shell("optimize", str(model), *INT8)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stderr == f"wrote {model.with_name('model.sparse.onnx')}\n"
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert shell("optimize", "-O9", str(model)).returncode == 2
    assert shell("--version").stdout.strip()
