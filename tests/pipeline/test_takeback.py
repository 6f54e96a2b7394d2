"""Pruning that no later pass has use for is taken back, biases too."""

from __future__ import annotations

from sparsify import modelio
from sparsify.pipeline import Pipeline, parse
from tests import small


def test_weights_and_biases_are_what_they_were():
    model = modelio.load(small.mlp())
    before = {n: v.const_value.numpy().copy() for n, v in model.graph.initializers.items()}
    feeds = [small.feed(seed=i) for i in range(4)]
    # Nothing is ever a million times faster.
    pipeline = Pipeline(parse("prune{pattern=2:4,min_size=1},sparse-int8{min_speedup=1000000}"))
    report = pipeline.run(model, sample=feeds[0], calibration=feeds)
    assert len(report.restored) == len(report.steps[0].changes) > 0
    assert {c.facts["method"] for c in report.steps[0].changes} == {"admm"}
    after = {n: v.const_value.numpy() for n, v in model.graph.initializers.items()}
    assert all((before[n] == after[n]).all() for n in before)
