"""README's commands and its Python are executed, in a folder that has nothing but the committed model."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import environment
from tests.report import schema

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    """The fenced blocks of `language` in README."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, int]]:
    """Every command of README with the exit code that it promises (`# exit 1`; 0 if it says nothing)."""
    found = []
    for line in "".join(blocks("sh")).splitlines():
        command, _, comment = line.partition("#")
        if not command.strip() or comment.strip() == "not run":
            continue
        promised = re.fullmatch(r"exit (\d)", comment.strip())
        found.append((command.strip(), int(promised.group(1)) if promised else 0))
    return found


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A folder where `sparsify` is a command and models/ holds what is committed."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "models").mkdir()
    for name in ("digits.onnx", "digits_data.npz"):
        shutil.copy(root / "models" / name, folder / "models" / name)
    return folder


def run(command: list[str], sandbox: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=sandbox, env=environment(sandbox), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def transcript(sandbox: Path) -> dict[str, subprocess.CompletedProcess[str]]:
    """All commands in README's order: later ones use files of earlier ones."""
    return {command: run(["sh", "-c", command], sandbox) for command, _ in commands()}


@pytest.mark.parametrize(("command", "promised"), commands())
def test_command_ends_as_promised(command: str, promised: int, transcript: dict[str, subprocess.CompletedProcess[str]]):
    done = transcript[command]
    assert done.returncode == promised, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("verb", "text"),
    [
        ("inspect", "layer2"),
        ("passes", "pattern"),
        ("bench", r"quarter\.onnx"),
        ("doctor", r"onnxruntime"),
    ],
)
def test_command_says_what_readme_says(verb: str, text: str, transcript: dict[str, subprocess.CompletedProcess[str]]):
    (done,) = (done for command, done in transcript.items() if command.split()[1] == verb)
    assert re.search(text, done.stdout), done.stdout


@pytest.mark.usefixtures("transcript")
def test_the_report_is_what_the_docs_say(sandbox: Path, root: Path):
    report = json.loads((sandbox / "report.json").read_text())
    schema.check(report)
    documented = (root / "docs" / "reports.md").read_text()
    drift = report["drift"] or {"outputs": {}}  # a busy machine may find that nothing pays
    tables = (report, drift, *drift["outputs"].values(), *report["nodes"], *report["passes"])
    undocumented = {key for table in tables for key in table if f"`{key}`" not in documented}
    assert not undocumented
    assert {node["name"] for node in report["nodes"]} == {"layer1", "layer2", "layer3"}
    assert all(node["decision"] and node["reason"] for node in report["nodes"])
    assert (sandbox / "report.html").stat().st_size > 0


@pytest.mark.usefixtures("transcript")
def test_the_model_given_is_left_alone(sandbox: Path, digits_model: Path):
    assert (sandbox / "models" / "digits.onnx").read_bytes() == digits_model.read_bytes()


def test_every_verb_is_shown():
    shown = {command.split()[1] for command, _ in commands()}
    assert shown == {"optimize", "audit", "bisect", "inspect", "bench", "passes", "doctor"}


def test_the_python_runs(sandbox: Path, root: Path):
    (example,) = blocks("python")
    done = run([sys.executable, "-c", example], sandbox)
    assert done.returncode == 0, done.stderr
    assert (sandbox / "fast.onnx").exists()
