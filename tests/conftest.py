"""Fixtures that tests of every floor share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# A busy machine must fail no test: by default hypothesis fails an example that takes 200 ms.
settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")

ROOT = Path(__file__).parent.parent


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
