"""The builder of the MNIST network, and its reader of torch's files."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import correlate2d

from models import mnist
from sparsify import runtime


def test_the_graph_is_the_network(rng):
    shapes = {"features.0": (3, 1, 3, 3), "features.3": (2, 3, 3, 3), "classifier.0": (5, 98), "classifier.2": (10, 5)}
    weights = {f"{n}.weight": rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    weights |= {f"{n}.bias": rng.standard_normal(s[0]).astype(np.float32) for n, s in shapes.items()}
    image = rng.standard_normal((1, 1, 28, 28)).astype(np.float32)
    (logits,) = runtime.session(mnist.build(weights), threads=1).run(["logits"], {"input": image})

    w = {name: array.astype(np.float64) for name, array in weights.items()}
    x = image[0].astype(np.float64)
    for name in ("features.0", "features.3"):
        kernels, bias = w[f"{name}.weight"], w[f"{name}.bias"]
        sums = [sum(correlate2d(a, k, "same") for a, k in zip(x, of, strict=True)) for of in kernels]
        y = np.maximum(np.stack(sums) + bias[:, None, None], 0)
        x = y.reshape(len(y), y.shape[1] // 2, 2, y.shape[2] // 2, 2).max(axis=(2, 4))
    inner = np.maximum(w["classifier.0.weight"] @ x.ravel() + w["classifier.0.bias"], 0)
    expected = w["classifier.2.weight"] @ inner + w["classifier.2.bias"]
    # Sums of 9, 27, 98 and 5 float32 products, one after the other.
    assert np.abs(logits[0] - expected).max() < 150 * 2.0**-24 * np.abs(expected).max()


def test_a_state_dict_may_ask_for_tensors_only(tmp_path: Path):
    path = tmp_path / "bad.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bad/data.pkl", pickle.dumps(Path))
    with pytest.raises(pickle.UnpicklingError, match="is not what a state dict"):
        mnist.state_dict(path)
