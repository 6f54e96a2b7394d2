"""Small models with real weights, for tests that run the whole compiler."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser

INPUTS, HIDDEN, OUTPUTS = 64, 96, 32
SAMPLES = 24


def mlp(seed: int = 0, sparsity: float = 0.0) -> onnx.ModelProto:
    """x [batch, 64] -> MatMul, Add, Relu, Gemm -> y [batch, 32]; `sparsity` of the weights is zeros."""
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        mlp (float[batch,{INPUTS}] x) => (float[batch,{OUTPUTS}] y) {{
            h = MatMul(x, w1)
            a = Add(h, b1)
            r = Relu(a)
            y = Gemm(r, w2, b2)
        }}"""
    random = np.random.default_rng(seed)
    arrays = {
        "w1": random.standard_normal((INPUTS, HIDDEN)),
        "b1": random.standard_normal(HIDDEN),
        "w2": random.standard_normal((HIDDEN, OUTPUTS)),
        "b2": random.standard_normal(OUTPUTS),
    }
    for name in ("w1", "w2"):
        arrays[name] *= random.random(arrays[name].shape) >= sparsity
    return _with(text, arrays)


def normalised(seed: int = 0) -> onnx.ModelProto:
    """x [batch, 64] -> LayerNormalization, some of whose inputs stand out, -> MatMul, Relu, MatMul -> y [batch, 32]."""
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        mlp (float[batch,{INPUTS}] x) => (float[batch,{OUTPUTS}] y) {{
            n = LayerNormalization<axis = -1>(x, gamma, beta)
            h = MatMul(n, w1)
            r = Relu(h)
            y = MatMul(r, w2)
        }}"""
    random = np.random.default_rng(seed)
    gamma = np.ones(INPUTS)
    gamma[::16] = 60
    w1 = random.standard_normal((INPUTS, HIDDEN)) / gamma[:, None]
    w2 = random.standard_normal((HIDDEN, OUTPUTS))
    return _with(text, {"gamma": gamma, "beta": np.zeros(INPUTS), "w1": w1, "w2": w2})


def no_linear_layer() -> onnx.ModelProto:
    """Nothing to prune: y = Relu(x)."""
    return onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> relu (float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }'
    )


def save(model: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    """Write the model and give its path."""
    (folder / name).write_bytes(model.SerializeToString())
    return folder / name


def feed(seed: int = 1, rows: int = SAMPLES) -> dict[str, np.ndarray]:
    """Samples for `mlp`."""
    return {"x": np.random.default_rng(seed).standard_normal((rows, INPUTS)).astype(np.float32)}


def save_feed(folder: Path, name: str = "data.npz", **arrays: np.ndarray) -> Path:
    """Write a feed, that of `mlp` if none is given, and give its path."""
    np.savez(folder / name, **(arrays or feed()))
    return folder / name


def _with(text: str, arrays: dict[str, np.ndarray]) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    for name, array in arrays.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    return model
