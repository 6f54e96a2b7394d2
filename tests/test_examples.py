"""examples/ are run as they stand, on small models: each gate lets a good candidate through and stops a bad one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import yaml

from sparsify import budgetfile
from tests import small
from tests.commands import environment
from tests.report import junit_structure, schema


@pytest.fixture
def place(tmp_path: Path, root: Path) -> Path:
    """The examples, and models of two candidates: good.onnx, whose weights are float16's, and bad.onnx."""
    shutil.copytree(root / "examples", tmp_path / "examples")
    models = tmp_path / "models"
    models.mkdir()
    small.save(small.mlp(), models, "base.onnx")
    small.save(small.mlp(seed=7), models, "bad.onnx")
    good = small.mlp()
    for tensor in good.graph.initializer:
        rounded = onnx.numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(rounded, tensor.name))
    small.save(good, models, "good.onnx")
    (models / "data").mkdir()
    small.save_feed(models / "data", "0.npz", **small.feed(rows=48))
    return tmp_path


def shell(place: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    environ = environment(place, **more)
    return subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True, check=False)


def candidate(place: Path, name: str) -> None:
    shutil.copy(place / "models" / f"{name}.onnx", place / "models" / "candidate.onnx")


@pytest.mark.parametrize(
    ("name", "says"),
    [pytest.param("good", "2 passed", marks=pytest.mark.slow), ("bad", "1 failed, 1 passed")],
)
def test_pytest_gate(place: Path, name: str, says: str):
    candidate(place, name)
    gate = str(place / "examples" / "pytest_gate")
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", gate, gate)
    done = shell(place, *command, MODELS=str(place / "models"))
    assert says in done.stdout
    assert done.returncode == (0 if name == "good" else 1)
    assert ("allowed >= 0.999" in done.stdout) == (name == "bad")


def test_ci_script(place: Path):
    script, reports = str(place / "examples" / "ci" / "gate.sh"), place / "reports"
    arguments = ("models/data",)
    good = shell(place, script, "models/base.onnx", "models/good.onnx", *arguments)
    assert good.returncode == 0, good.stderr
    assert "may ship" in good.stderr
    report = json.loads((reports / "audit.json").read_text())
    schema.check(report)
    assert not any(v["budget"].startswith("baseline") for v in report["drift"]["verdicts"])
    junit_structure.check(xml.parse(reports / "junit.xml").getroot())
    shutil.copy(reports / "audit.json", reports / "accepted.json")
    bad = shell(place, script, "models/base.onnx", "models/bad.onnx", *arguments)
    assert bad.returncode == 1
    assert "may not ship" in bad.stderr
    verdicts = json.loads((reports / "audit.json").read_text())["drift"]["verdicts"]
    assert any(v["budget"] == "baseline cosine@y" and not v["passed"] for v in verdicts)


@pytest.mark.slow
def test_pre_commit_hook(place: Path):
    """With pre-commit itself, in a repository of its own."""
    for name in (".pre-commit-config.yaml", "budget.toml"):
        shutil.copy(place / "examples" / "pre_commit" / name, place / name)
    candidate(place, "good")
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org")
    assert shell(place, *git, "init", "-q").returncode == 0
    files = ("models/base.onnx", "models/candidate.onnx", "models/data", "budget.toml", ".pre-commit-config.yaml")
    assert shell(place, *git, "add", *files).returncode == 0
    hook = (sys.executable, "-m", "pre_commit", "run", "--all-files", "--color", "never")
    home = {"PRE_COMMIT_HOME": str(place / "pre-commit")}
    good = shell(place, *hook, **home)
    assert good.returncode == 0, good.stdout + good.stderr
    assert "Passed" in good.stdout
    candidate(place, "bad")
    assert shell(place, *git, "add", "models/candidate.onnx").returncode == 0
    bad = shell(place, *hook, **home)
    assert bad.returncode == 1
    assert "over budget" in bad.stdout


def test_the_workflow_keeps_one_comment(place: Path):
    """Its script runs with a `gh` that records what it is asked and knows the comments that a file holds."""
    if shutil.which("jq") is None:
        pytest.skip("there is no jq here")
    workflow = yaml.safe_load((place / "examples" / "github" / "audit.yml").read_text())
    (step,) = (s for s in workflow["jobs"]["audit"]["steps"] if "COMMENTS" in s.get("env", {}))
    assert "${{" not in step["run"]
    environment(place)  # makes bin/
    gh = place / "bin" / "gh"
    gh.write_text(
        f'#!/bin/sh\ncase "$*" in *--paginate*) cat "{place}/comments";; *) echo "$@" >> "{place}/calls";; esac\n'
    )
    gh.chmod(0o755)
    marker = "<!-- sparsify-audit a b -->"
    (place / "audit.md").write_text(f"{marker}\n\n## Over the budget\n")
    theirs = {"id": 7, "user": "somebody", "body": f"{marker}\nnot ours"}
    ours = {"id": 9, "user": "github-actions[bot]", "body": f"{marker}\nold"}
    for comments, asked in (
        ([theirs], "api --method POST repos/o/r/issues/3/comments -F body=@audit.md\n"),
        ([theirs, ours], "api --method PATCH repos/o/r/issues/comments/9 -F body=@audit.md\n"),
    ):
        (place / "comments").write_text("".join(json.dumps(c) + "\n" for c in comments))
        (place / "calls").unlink(missing_ok=True)
        done = shell(place, "bash", "-eo", "pipefail", "-c", step["run"], COMMENTS="repos/o/r/issues/3/comments")
        assert done.returncode == 0, done.stderr
        assert (place / "calls").read_text() == asked


def test_the_workflow_gives_the_action_what_it_takes(root: Path):
    workflow = yaml.safe_load((root / "examples" / "github" / "audit.yml").read_text())
    action = yaml.safe_load((root / "action.yml").read_text())
    (step,) = (s for s in workflow["jobs"]["audit"]["steps"] if "sparsify" in s.get("uses", ""))
    required = {name for name, declared in action["inputs"].items() if declared.get("required")}
    assert required <= set(step["with"]) <= set(action["inputs"])


def test_every_example_has_a_test_and_every_budget_file_is_one(root: Path):
    folders = {path.name for path in (root / "examples").iterdir() if path.is_dir()}
    assert folders == {"pytest_gate", "pre_commit", "ci", "github"}
    for file in (root / "examples").rglob("budget.toml"):
        assert budgetfile.read(file)
