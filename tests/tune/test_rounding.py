"""What low precision of one layer does to the outputs, against models in which that layer really runs in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from sparsify import graph, modelio, resume, runtime, tune
from sparsify.audit import audit
from sparsify.pipeline.run import observe_rows
from sparsify.rewrite import Choice
from sparsify.tune import options, rounding
from sparsify.tune.plan import LOWER
from tests import small
from tests.tune.test_search import DATA, given_times

FEEDS = DATA[:2]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSIFY_CACHE", str(tmp_path))


def measure(model: ir.Model, formats: tuple[str, ...], memory: int = 2**20) -> dict[tuple[str, str], float]:
    observe_rows(model, FEEDS[0])
    wanted = dict.fromkeys(graph.linear_layers(model), formats)
    saved = resume.Saved.of("rounding", model, FEEDS)
    return rounding.measure(model, wanted, FEEDS, memory=memory, threads=1, saved=saved)


@pytest.mark.parametrize("memory", [1, 2**20])  # a layer at a time, and all at once
def test_each_drift_is_that_of_a_model_with_that_layer_alone(memory: int) -> None:
    model = modelio.load(small.mlp())
    found = measure(model, tuple(LOWER), memory)
    assert len(found) == 2 * len(LOWER)
    for (name, format_), drift in found.items():
        built = modelio.load(small.mlp())
        tune.build(built, tune.pipeline("portable"), {name: Choice(format_)}, [])
        really = audit(model, built, FEEDS, threads=1).outputs["y"].metrics["relative_l2"].value ** 2
        # Both round; where onnxruntime sums otherwise a value may fall on the other side of one int8 step of its row.
        assert drift == pytest.approx(really, rel=0.02, abs=1e-10)


def test_what_was_measured_is_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = modelio.load(small.mlp())
    first = measure(model, ("sparse-int8",))
    monkeypatch.setattr(runtime, "Trials", None)
    assert measure(model, ("sparse-int8",)) == first


def test_a_layer_that_cannot_be_seen_gets_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options.candidates, "measure", given_times)
    monkeypatch.setattr(rounding, "measurable", lambda layer, graph: layer.shape[0] == small.INPUTS)
    found = tune.problem(modelio.load(small.mlp()), DATA[:6], tune.Settings(effort=0))
    drifts = [{o.choice: o.drift for o in of_layer} for of_layer in found.options]
    assert all(d[Choice("sparse-int8")] > 0 for d in drifts)
    assert drifts[0][Choice("sparse-int8")] != drifts[1][Choice("sparse-int8")]


def test_layers_in_half_precision_are_not_seen() -> None:
    model = modelio.load(small.mlp())
    assert all(rounding.measurable(x, model.graph) for x in graph.linear_layers(model))
    for tensor in model.graph.initializers.values():
        assert tensor.const_value is not None
        tensor.const_value = ir.tensor(tensor.const_value.numpy().astype(np.float16), name=tensor.name)
        tensor.type = ir.TensorType(ir.DataType.FLOAT16)
    assert not any(rounding.measurable(x, model.graph) for x in graph.linear_layers(model))
