"""action.yml: its scripts are run as GitHub runs them, on a small model; what a caller gives is never a command."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import small
from tests.commands import environment

BASH = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]  # what `shell: bash` stands for


@pytest.fixture(scope="module")
def action(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((root / "action.yml").read_text())
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    small.save(small.mlp(), tmp_path, "base.onnx")
    small.save_feed(tmp_path)
    return tmp_path


def step(action: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (s for s in action["runs"]["steps"] if s["id"] == name)
    return dict(found)


def run(
    action: dict[str, Any], place: Path, stub: str | None = None, **inputs: str
) -> tuple[subprocess.CompletedProcess[str], str, str]:
    """The audit step with these inputs, and perhaps another `sparsify`: what it did, its outputs, and the summary."""
    audit = step(action, "audit")
    given = {name: declared.get("default", "") for name, declared in action["inputs"].items()} | inputs
    environ = environment(place)
    if stub is not None:
        (place / "bin" / "sparsify").write_text(stub)
    for variable, expression in audit["env"].items():
        asked = re.fullmatch(r"\$\{\{ inputs\.(\w+) \}\}", expression)
        assert asked, expression
        environ[variable] = given[asked[1]]
    outputs, summary = place / "outputs", place / "summary.md"
    environ |= {"GITHUB_OUTPUT": str(outputs), "GITHUB_STEP_SUMMARY": str(summary)}
    script = place / "step.sh"
    script.write_text(audit["run"])
    done = subprocess.run([*BASH, str(script)], cwd=place, env=environ, capture_output=True, text=True, check=False)
    return done, outputs.read_text(), summary.read_text()


FILES = {"base": "base.onnx", "candidate": "base.onnx", "data": "data.npz"}


def test_a_candidate_that_may_ship(action: dict[str, Any], place: Path):
    budget = place / "budget.toml"
    budget.write_text('[[budget]]\nmetric = "cosine"\nat_least = 0.99\n')
    inputs = {**FILES, "budget": "max_abs<=0\n\nbudget.toml\r\n", "report": "a.json\na b.html"}
    done, outputs, summary = run(action, place, **inputs)
    assert done.returncode == 0, done.stderr
    assert outputs == "passed=true\n"
    assert summary.startswith("<!-- sparsify-audit")
    assert "`cosine>=0.99`" in summary
    assert "`max_abs<=0.0`" in summary
    assert (place / "a b.html").exists()


EVIL = [
    "$(touch hit)",
    "`touch hit`",
    '"; touch hit; "',
    "'; touch hit; '",
    "x && touch hit",
    "--help",
    "-o",
    "*",
    " a b ",
]


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 130])
def test_inputs_are_data_and_no_commands_and_the_exit_code_passes_through(
    action: dict[str, Any], place: Path, code: int
):
    """A `sparsify` that says what it was given, and ends as it is told."""
    stub = f'#!/bin/sh\nfor a in "$@"; do printf "%s\\n" "$a"; done > "{place}/given"\nexit {code}\n'
    for number, value in enumerate(EVIL):
        lines = "\n".join(EVIL)
        inputs = {"base": value, "candidate": EVIL[-number], "data": value, "budget": lines, "baseline": value}
        done, outputs, summary = run(action, place, stub, **inputs, report=lines)
        assert done.returncode == code
        assert outputs.splitlines()[-1] == f"passed={'true' if code == 0 else 'false'}"
        assert f"could not judge the candidate: exit code {code}" in summary  # this one writes no report
        verb, *given = (place / "given").read_text().splitlines()
        assert verb == "audit"
        expected = [f"--data={value}", *(f"--budget={e}" for e in EVIL), *(f"--report={e}" for e in EVIL)]
        assert given[: len(expected)] == expected
        assert given[len(expected)] == f"--baseline={value}"
        assert given[-3:] == ["--", value, EVIL[-number]]
        assert not (place / "hit").exists()


def test_no_script_has_an_expression_in_it(action: dict[str, Any]):
    """What `${{ }}` is replaced by would be read by the shell."""
    for one in action["runs"]["steps"]:
        assert "${{" not in one["run"]
    assert action["outputs"]["passed"]["value"] == "${{ steps.audit.outputs.passed }}"
    assert set(step(action, "audit")["env"].values()) == {f"${{{{ inputs.{name} }}}}" for name in action["inputs"]}


@pytest.mark.parametrize("there", [True, False])
def test_installs_only_where_there_is_none(action: dict[str, Any], place: Path, there: bool):
    bin_ = place / "own"
    bin_.mkdir()
    names = ["python", "sparsify"] if there else ["python"]
    for name in names:
        (bin_ / name).write_text(f'#!/bin/sh\necho "$0 $@" >> "{place}/calls"\n')
        (bin_ / name).chmod(0o755)
    environ = {"PATH": f"{bin_}:/usr/bin:/bin", "GITHUB_ACTION_PATH": "/some where/else", "HOME": os.environ["HOME"]}
    script = place / "step.sh"
    script.write_text(step(action, "install")["run"])
    subprocess.run([*BASH, str(script)], cwd=place, env=environ, check=True)
    calls = (place / "calls").read_text() if (place / "calls").exists() else ""
    assert calls == ("" if there else f"{bin_}/python -m pip install --quiet /some where/else\n")
