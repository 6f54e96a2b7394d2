"""sparsify audit as a gate: budgets from files, baselines, exit codes."""

from __future__ import annotations

import json
import xml.etree.ElementTree as xml
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

from sparsify.cli import main
from tests import small
from tests.cli import Run
from tests.report import junit_structure


def verdicts(report: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(report.read_text())["drift"]["verdicts"]
    return found


def test_budgets_from_a_file(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "budget.toml"
    file.write_text('[[budget]]\nmetric = "sqnr_db"\noutput = "y"\nat_least = 60\nreason = "as agreed"')
    other = small.save(small.mlp(seed=7), tmp_path, "other.onnx")
    status, _, _ = run("audit", model, other, "--data", data, "--budget", file, "--report", tmp_path / "r.json")
    assert status == 1
    (verdict,) = verdicts(tmp_path / "r.json")
    assert (verdict["budget"], verdict["reason"], verdict["passed"]) == ("sqnr_db@y>=60.0", "as agreed", False)


def noisy(tmp_path: Path, name: str, scale: float) -> Path:
    """`small.mlp` whose weights are off by a relative `scale`."""
    model = small.mlp()
    random = np.random.default_rng(5)
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        wrong = array * (1 + scale * random.standard_normal(array.shape))
        tensor.CopyFrom(onnx.numpy_helper.from_array(wrong.astype(np.float32), tensor.name))
    return small.save(model, tmp_path, name)


@pytest.fixture(scope="module")
def report_of_accepted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What an audit says of a candidate that is accepted, on the model and the data of every test."""
    folder = tmp_path_factory.mktemp("accepted")
    models = small.save(small.mlp(), folder), noisy(folder, "accepted.onnx", 0.01)
    command = ["audit", *models, "--data", small.save_feed(folder), "--budget", "cosine>=0.9"]
    assert main([*map(str, command), "--report", str(folder / "r.json")]) == 0
    return (folder / "r.json").read_text()


@pytest.fixture
def accepted(tmp_path: Path, report_of_accepted: str) -> Path:
    """That report in a file."""
    (tmp_path / "accepted.json").write_text(report_of_accepted)
    return tmp_path / "accepted.json"


def test_no_worse_than_the_accepted_one(run: Run, model: Path, data: Path, tmp_path: Path, accepted: Path) -> None:
    report = tmp_path / "r.json"
    options = ("--data", data, "--baseline", accepted, "--report", report)
    assert run("audit", model, noisy(tmp_path, "accepted.onnx", 0.01), *options)[0] == 0
    assert {v["budget"] for v in verdicts(report)} >= {"baseline cosine@y", "baseline max_abs@y"}
    assert run("audit", model, noisy(tmp_path, "better.onnx", 0.005), *options)[0] == 0
    status, out, err = run("audit", model, noisy(tmp_path, "worse.onnx", 0.05), *options)
    assert status == 1
    assert "BROKEN" in out
    assert "in the baseline" in err
    assert not any(v["passed"] for v in verdicts(report) if v["budget"] == "baseline relative_l2@y")


def _other_data(folder: Path, report: dict[str, Any]) -> None:
    small.save_feed(folder, "data.npz", **small.feed(seed=9))


def _other_base(folder: Path, report: dict[str, Any]) -> None:
    noisy(folder, "model.onnx", 1e-6)


BASELINES: dict[str, tuple[Callable[[Path, dict[str, Any]], None], str]] = {
    "other data": (_other_data, "this report is on other data"),
    "other base": (_other_base, "this report is on another base model"),
    "no digest": (lambda _, r: r.pop("data"), "it names none"),
    "other schema": (lambda _, r: r.update(schema="sparsify/report-0"), "schema 'sparsify/report-0'"),
    "other kind": (lambda _, r: r.update(kind="bench"), "not the report of an audit"),
    "was refused": (lambda _, r: r.update(accepted=False), "was refused itself"),
    "says not whether": (lambda _, r: r.pop("accepted"), "was refused itself"),
    "damaged": (lambda _, r: r["drift"].update(outputs=[1]), "this report is damaged"),
    "a figure of text": (lambda _, r: r["drift"]["outputs"]["y"]["metrics"]["cosine"].update(low="x"), "damaged"),
    "no metric": (lambda _, r: r["drift"]["outputs"]["y"].update(metrics={}), "no metric of this report"),
    "no output": (lambda _, r: r["drift"].update(outputs={}), "no metric of this report"),
}


@pytest.mark.parametrize("case", BASELINES)
def test_a_baseline_that_cannot_be_one(
    run: Run, model: Path, data: Path, tmp_path: Path, accepted: Path, case: str
) -> None:
    spoil, says = BASELINES[case]
    report = json.loads(accepted.read_text())
    spoil(tmp_path, report)
    accepted.write_text(json.dumps(report))
    status, out, err = run("audit", model, model, "--data", data, "--baseline", accepted)
    assert status == 3
    assert out == ""
    assert says in err
    assert "hint: make it with `sparsify audit" in err


@pytest.mark.parametrize(("text", "says"), [(None, "cannot read"), ("{", "this is not JSON"), ("[]", "not the report")])
def test_a_baseline_that_is_no_report(
    run: Run, model: Path, data: Path, tmp_path: Path, text: str | None, says: str
) -> None:
    if text is not None:
        (tmp_path / "b.json").write_text(text)
    status, _, err = run("audit", model, model, "--data", data, "--baseline", tmp_path / "b.json")
    assert status == 3
    assert says in err


def test_junit_in_a_file_of_any_name(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "results.junit"
    status, _, _ = run("audit", model, model, "--data", data, "--budget", "max_abs<=0", "--junit", file)
    assert status == 0
    root = xml.parse(file).getroot()
    junit_structure.check(root)
    assert [case.get("name") for case in root.iter("testcase")] == ["verdict", "max_abs<=0.0 @ y"]


def test_junit_that_cannot_be_written_is_said_first(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    status, out, err = run("audit", model, model, "--data", data, "--junit", tmp_path / "absent" / "r.xml")
    assert (status, out) == (2, "")
    assert "(--junit" in err


def _skips(folder: Path, outputs: str, body: str) -> Path:
    text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[n,4] x) => ({outputs}) {{ {body} }}'
    return small.save(onnx.parser.parse_model(text), folder, "skips.onnx")


NAN = "one = Constant<value_float = 0.0>() nan = Div(one, one) z = Mul(x, nan)"


@pytest.mark.parametrize("budget", [(), ("--budget", "max_abs<=1"), ("--budget", "cosine@z>=0.9")])
def test_when_everything_was_skipped_nothing_has_passed(run: Run, tmp_path: Path, budget: tuple[str, ...]) -> None:
    model = _skips(tmp_path, "float[n,4] z", NAN)
    data = small.save_feed(tmp_path, x=np.ones((12, 4), np.float32))
    report = tmp_path / "r.json"
    status, out, err = run("audit", model, model, "--data", data, *budget, "--report", report)
    assert status == 3
    assert out == ""
    assert "nothing could be compared" in err
    assert not report.exists()


def test_a_budget_on_an_output_that_was_skipped_has_not_passed(run: Run, tmp_path: Path) -> None:
    model = _skips(tmp_path, "float[n,4] y, float[n,4] z", f"y = Relu(x) {NAN}")
    data = small.save_feed(tmp_path, x=np.ones((12, 4), np.float32))
    assert run("audit", model, model, "--data", data)[0] == 0
    status, _, err = run("audit", model, model, "--data", data, "--budget", "cosine@z>=0.9")
    assert status == 2
    assert "skipped" in err
