"""Fixtures that tests of every floor share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from sparsify.cli import talk
from tests.report import schema

# A busy machine must fail no test: by default hypothesis fails an example that takes 200 ms.
settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _reports_keep_to_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the command line delivers is held against the schema that is published."""
    deliver = talk.deliver

    def checked(report: dict[str, Any], *rest: Any, **named: Any) -> None:
        schema.check(report)
        deliver(report, *rest, **named)

    monkeypatch.setattr(talk, "deliver", checked)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def digits_model() -> Path:
    """A small trained perceptron: pixels float32 [N, 64] -> logits float32 [N, 10]. Do not write to it."""
    return ROOT / "models" / "digits.onnx"


@pytest.fixture(scope="session")
def digits_data() -> Path:
    """One feed of 597 images that the perceptron was not trained on."""
    return ROOT / "models" / "digits_data.npz"


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run of a test."""
    return np.random.default_rng(0)
