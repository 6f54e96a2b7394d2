"""The parts of benchmarks.free that need no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

import sparsify
from benchmarks import free
from benchmarks.magnitude import pruned
from models import digits
from tests import small


def test_magnitude_takes_the_smallest(tmp_path: Path):
    model = small.save(small.mlp(), tmp_path)
    found = onnx.load(pruned(model, 0.5, tmp_path / "pruned.onnx"))
    before = {t.name: numpy_helper.to_array(t) for t in onnx.load(model).graph.initializer}
    for tensor in found.graph.initializer:
        after = numpy_helper.to_array(tensor)
        if not tensor.name.startswith("w"):
            np.testing.assert_array_equal(after, before[tensor.name])
            continue
        zeros = after == 0
        assert abs(zeros.mean() - 0.5) <= 1 / after.size
        assert np.abs(before[tensor.name][zeros]).max() <= np.abs(before[tensor.name][~zeros]).min()


def test_a_page_says_what_was_found(tmp_path: Path):
    case = next(c for c in free.CASES if c.name.startswith("digits"))
    base, candidate, feeds, labels = case.make(tmp_path)
    assert base == digits.MODEL
    found = sparsify.audit(base, candidate, feeds, labels=labels)
    page = free._page([(case, found)])
    truth = found.truths[0]
    assert f"{truth.base.value:.3f} to {truth.candidate.value:.3f}" in page
    assert "McNemar's test tells no difference" in page
    assert found.outputs["logits"].metrics["flips"].low > 0
