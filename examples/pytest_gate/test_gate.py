"""The gate as a test: base.onnx, candidate.onnx and data/ stand in $MODELS, or beside this file.

MODELS=path/to/models pytest examples/pytest_gate
"""

import os
from pathlib import Path

import pytest

import sparsify

HERE = Path(__file__).parent
MODELS = Path(os.environ.get("MODELS", HERE))


@pytest.fixture(scope="module")
def drift():
    return sparsify.audit(MODELS / "base.onnx", MODELS / "candidate.onnx", MODELS / "data", str(HERE / "budget.toml"))


def test_the_candidate_may_ship(drift):
    assert drift, "\n".join(verdict.what for verdict in drift.verdicts if not verdict.passed)


def test_every_output_was_judged(drift):
    assert {verdict.output for verdict in drift.verdicts} >= set(drift.outputs)
