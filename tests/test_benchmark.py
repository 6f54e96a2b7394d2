"""The bench reports what it ran; no times are judged here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from sparsify import benchmark
from sparsify.errors import InputError
from sparsify.runtime import Timing

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
mlp (float[M,4] x) => (float[M,2] y)
<float[4,2] w = {8, 1, 7, 2, 6, 3, 5, 4}>
{ h = MatMul(x, w)
  y = Relu(h) }"""
OTHER = MODEL.replace("[M,4] x", "[M,4] z").replace("(x, w)", "(z, w)")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    onnx.save(ir.to_proto(ir.from_onnx_text(MODEL)), path)
    return path


def test_reports_sizes_timings_and_the_ratio_to_the_first(path: Path):
    ticks: list[tuple[int, int]] = []
    report = benchmark.bench([path, path.read_bytes()], runs=5, threads=1, progress=lambda *t: ticks.append(t))
    assert [m.name for m in report.models] == [str(path), "model 1"]
    assert [m.size_bytes for m in report.models] == [path.stat().st_size] * 2
    assert [m.timing.runs for m in report.models] == [5, 5]
    assert report.models[0].speedup == benchmark.Spread(1, 1, 1)
    assert report.synthetic
    assert report.shapes == {"x": (1, 4)}
    assert not any(m.native for m in report.models)
    assert ticks == [(i, 5) for i in range(1, 6)]
    assert json.loads(json.dumps(report.to_dict()))["models"][1]["latency"]["runs"] == 5


def test_ratio_is_taken_round_by_round():
    slow, fast = Timing.of((2.0, 40.0, 6.0)), Timing.of((1.0, 10.0, 2.0))
    assert benchmark._speedup(slow, fast) == benchmark.Spread(3.0, 2.5, 3.5)  # of 2, 4, 3


def test_uses_the_data_given(path: Path):
    report = benchmark.bench({"a": path}, [{"x": np.zeros((7, 4), np.float32)}], runs=3)
    assert report.shapes == {"x": (7, 4)}
    assert not report.synthetic


def test_a_model_given_twice_keeps_both_rows(path: Path):
    assert [m.name for m in benchmark.bench([path, path], runs=3).models] == [str(path), f"{path} (1)"]


def test_refuses_models_with_other_inputs(path: Path):
    with pytest.raises(InputError, match="different inputs: x; z"):
        benchmark.bench([path, ir.from_onnx_text(OTHER)], runs=3)
