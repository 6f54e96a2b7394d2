"""sparsify bisect"""

from __future__ import annotations

import json
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

from tests import small
from tests.audit import faults
from tests.audit.faults import weight_fault
from tests.audit.test_faults import named
from tests.cli import Run


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    base = named(small.mlp())
    return small.save(weight_fault(base, "y/Gemm", faults.transposed)[0], tmp_path, "broken.onnx")


def test_names_the_guilty_node_and_exits_1(run: Run, model: Path, broken: Path, data: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"r{suffix}" for suffix in (".json", ".html", ".md", ".xml")]
    reports = [o for file in files for o in ("--report", file)]
    status, out, err = run("bisect", model, broken, "--data", data, "--budget", "cosine>=0.99", *reports)
    assert (status, err) == (1, "")
    assert "`y/Gemm` alone breaks the budget, of 1 change (2 audits)" in " ".join(out.split())
    found = json.loads(files[0].read_text())
    assert found["kind"] == "bisect"
    assert not found["accepted"]
    assert found["guilty"][0]["changes"][0]["nodes"] == ["y/Gemm"]
    assert not found["guilty"][0]["verdicts"][0]["passed"]
    assert found["audits"] == 2
    assert "y/Gemm" in files[1].read_text()
    assert "| set | nodes | in the base | then |" in files[2].read_text()
    assert xml.parse(files[3]).getroot()[0].get("failures") == "2"


def test_inside_the_budget_nobody_is_guilty(run: Run, model: Path, broken: Path, data: Path) -> None:
    status, out, err = run("bisect", model, broken, "--data", data, "--budget", "cosine>=-1")
    assert (status, err) == (0, "")
    assert "inside every budget (1 audit)" in " ".join(out.split())


def test_needs_a_budget(run: Run, model: Path, broken: Path, data: Path) -> None:
    status, _, err = run("bisect", model, broken, "--data", data)
    assert status == 2
    assert "--budget" in err
