"""Without data the inputs are made up, judged all the same, and nobody can miss it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np
import onnx
import pytest

from sparsify import api
from tests import small
from tests.cli import Run


def test_the_note_is_the_first_thing_seen(run: Run, model: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"r{suffix}" for suffix in (".json", ".md", ".html", ".xml")]
    options = [o for file in files for o in ("--report", file)]
    other = small.save(small.mlp(seed=7), tmp_path, "other.onnx")
    status, out, err = run("audit", model, other, "--budget", "cosine>=0.99", *options)
    assert status == 1
    assert err.startswith(f"warning: {api.SYNTHETIC}\n")
    assert f"note: {api.SYNTHETIC}" in " ".join(out.split())
    report = json.loads(files[0].read_text())
    assert report["data"]["synthetic"] is True
    assert report["data"]["source"] is None
    assert report["summary"].startswith(api.SYNTHETIC)
    assert report["drift"]["notes"][0] == api.SYNTHETIC
    assert report["drift"]["outputs"]["y"]["samples"] >= 10
    before_figures = files[1].read_text().split("\n| ")[0]
    assert f"> {api.SYNTHETIC}" in before_figures
    assert files[2].read_text().index("the inputs were made up") < files[2].read_text().index("<section>")
    failure = xml.parse(files[3]).getroot()[0].find("testcase/failure")
    assert failure is not None
    assert failure.get("message", "").startswith(api.SYNTHETIC)


@pytest.mark.parametrize("command", ["audit", "bench"])
def test_a_model_that_takes_other_shapes_than_it_declares(run: Run, tmp_path: Path, command: str) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> narrow (float[N,M] x) => (float[N,M] y)
        <float[3] w = {1, 2, 3}> { y = Add(x, w) }"""
    path = tmp_path / "narrow.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    status, _, err = run(command, path, path)
    assert status == 3
    assert "hint: the inputs were made up" in err
    np.savez(tmp_path / "feed.npz", x=np.zeros((2, 2), np.float32))
    status, _, err = run(command, path, path, "--data", tmp_path / "feed.npz")
    assert status == 3
    assert "made up" not in err


def test_it_is_judged_all_the_same(run: Run, model: Path) -> None:
    assert run("audit", model, model, "--budget", "max_abs<=0")[0] == 0


def test_quiet_still_has_it_in_the_report(run: Run, model: Path) -> None:
    status, out, err = run("audit", model, model, "--quiet")
    assert (status, err) == (0, "")
    assert api.SYNTHETIC in " ".join(out.split())


@pytest.mark.parametrize("seed", [0, 3])
def test_the_same_seed_makes_the_same_up(run: Run, model: Path, tmp_path: Path, seed: int) -> None:
    for name in ("a.json", "b.json"):
        run("audit", model, model, "--seed", seed, "--report", tmp_path / name)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
