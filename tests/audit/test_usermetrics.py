"""Metrics that people bring: one sample at a time, judged like any other, and errors that name the function."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import sparsify
from sparsify.audit import usermetrics
from sparsify.budget import METRICS
from sparsify.errors import InputError, UsageError

SCALED = """<ir_version: 8, opset_import: ["" : 17]>
scaled (float[N,3] x, float[2] c) => (float[N,3] y, float[2] d) <float[1] s = {SCALE}> {
  y = Mul(x, s)
  d = Identity(c) }"""
BASE, CANDIDATE = (ir.from_onnx_text(SCALED.replace("SCALE", s)) for s in ("1", "0.5"))
ALONE = [
    ir.from_onnx_text(f"""<ir_version: 8, opset_import: ["" : 17]>
    alone (float[N,3] x) => (float[N,3] y) <float[1] s = {{{scale}}}> {{ y = Mul(x, s) }}""")
    for scale in ("1", "0.5")
]
DATA = {"x": np.arange(1, 13, dtype=np.float32).reshape(4, 3), "c": np.ones(2, np.float32)}


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch):
    known = dict(METRICS)
    yield
    METRICS.clear()
    METRICS.update(known)


def worst_ratio(base, candidate, feed):
    """Ratio of the first elements."""
    return float(candidate["y"].flat[0] / feed["x"].flat[0])


def test_sees_one_sample_at_a_time_and_is_judged():
    data = {"x": DATA["x"]}
    seen = []

    def gap(base, candidate, feed):
        seen.append((base["y"].shape, feed["x"].shape))
        return base["y"].sum() - candidate["y"].sum()

    gap.higher_is_better = False
    found = sparsify.audit(*ALONE, data, ["gap<=100", "worst_ratio>=0.4"], metrics=[gap, worst_ratio])
    assert seen == [((1, 3), (1, 3))] * 4
    assert found.whole.samples == 4
    assert found.whole.metrics["gap"].value == pytest.approx(DATA["x"].sum(1).mean() / 2)
    assert [(v.output, v.state) for v in found.verdicts] == [("all outputs", "passed")] * 2
    told = found.to_dict()["whole"]
    assert told["metrics"]["worst_ratio"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert METRICS["worst_ratio"].what == "Ratio of the first elements."


def test_a_feed_without_a_batch_is_one_sample():
    found = sparsify.audit(BASE, CANDIDATE, DATA, metrics=[worst_ratio])
    assert found.whole.samples == 1


def test_is_loaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_metrics.py").write_text("def mine(base, candidate, feed):\n    return 1\n\nnumber = 3\n")
    (tmp_path / "my_broken.py").write_text("import there_is_no_such_module\n")
    monkeypatch.chdir(tmp_path)
    assert usermetrics.load("my_metrics:mine").metric.name == "mine"
    for text, words in (
        ("my_metrics", "a metric is MODULE:FUNCTION"),
        ("my_nowhere:f", "there is no module `my_nowhere`"),
        ("my_metrics:other", "the module `my_metrics` has no function `other`"),
        ("my_metrics:number", "the module `my_metrics` has no function `number`"),
    ):
        with pytest.raises(UsageError) as error:
            usermetrics.load(text)
        assert (error.value.what, error.value.where) == (words, f"--metric {text}")
    with pytest.raises(InputError, match="it fails: ModuleNotFoundError: No module named 'there_is_no_such_module'"):
        usermetrics.load("my_broken:f")


def test_names_are_not_taken_twice():
    def cosine(base, candidate, feed):
        return 1.0

    with pytest.raises(UsageError, match="`cosine` is a metric already"):
        usermetrics.load(cosine)
    with pytest.raises(UsageError, match="no name that a budget could use"):
        usermetrics.load(lambda base, candidate, feed: 1.0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda: 1 / 0, "it fails on sample 0: ZeroDivisionError: division by zero"),
        (lambda: None, "it gives a `NoneType` on sample 0, not a number"),
        (lambda: [1, 2], "it gives a `list` on sample 0, not a number"),
        (lambda: "high", "it gives a `str` on sample 0, not a number"),
    ],
)
def test_errors_name_the_function(given, words: str):
    def mine(base, candidate, feed):
        return given()

    with pytest.raises(InputError) as error:
        sparsify.audit(BASE, CANDIDATE, DATA, metrics=[mine])
    assert (error.value.what, error.value.where) == (words, "metric mine")


def test_nan_never_passes():
    def mine(base, candidate, feed):
        return np.nan

    assert not sparsify.audit(BASE, CANDIDATE, DATA, "mine>=-1e300", metrics=[mine])
