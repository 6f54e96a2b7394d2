"""Make digits.onnx, digits_data.npz and digits_labels.npy: a small real trained model for where there is no network.

A perceptron 64-384-384-10 with ReLU, trained by scikit-learn on its handwritten digits (8x8 pixels, 1797 images).
The held-out images were never trained on. Needs scikit-learn; they are committed so that nobody else does.

    python -m models.digits [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

HERE = Path(__file__).parent
MODEL, DATA = HERE / "digits.onnx", HERE / "digits_data.npz"
LABELS = HERE / "digits_labels.npy"
HIDDEN = (384, 384)
TRAINED = 1200  # of 1797 images
SEED = 0

Matrix = npt.NDArray[np.float32]


def train() -> tuple[list[Matrix], list[Matrix], Matrix, npt.NDArray[np.int64]]:
    """Weights [in, out], biases [out], held-out pixels [n, 64] in 0..1, and their labels [n]."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    pixels, labels = load_digits(return_X_y=True)
    pixels = (pixels / 16).astype(np.float32)
    order = np.random.default_rng(SEED).permutation(len(pixels))
    known, held_out = order[:TRAINED], order[TRAINED:]
    classifier = MLPClassifier(HIDDEN, alpha=1e-3, max_iter=200, random_state=SEED)
    classifier.fit(pixels[known], labels[known])
    weights = [w.astype(np.float32) for w in classifier.coefs_]
    biases = [b.astype(np.float32) for b in classifier.intercepts_]
    return weights, biases, pixels[held_out], labels[held_out].astype(np.int64)


def to_onnx(weights: list[Matrix], biases: list[Matrix], inputs: int = 64) -> ir.Model:
    """pixels [N, inputs] -> logits [N, 10]: Gemm with weights [out, in], as torch exports them, and Relu between."""
    pixels = ir.val("pixels", ir.DataType.FLOAT, ["N", inputs])
    value, nodes, initializers = pixels, [], []
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True), start=1):
        w = ir.Value(name=f"w{i}", const_value=ir.tensor(np.ascontiguousarray(weight.T), name=f"w{i}"))
        b = ir.Value(name=f"b{i}", const_value=ir.tensor(bias, name=f"b{i}"))
        initializers += [w, b]
        nodes.append(ir.node("Gemm", [value, w, b], {"transB": 1}, name=f"layer{i}"))
        if i < len(weights):
            nodes.append(ir.node("Relu", nodes[-1].outputs, name=f"relu{i}"))
        value = nodes[-1].outputs[0]
        value.name = f"hidden{i}"
    value.name, value.shape, value.type = "logits", ir.Shape(["N", 10]), pixels.type
    graph = ir.Graph([pixels], [value], nodes=nodes, initializers=initializers, opset_imports={"": 17}, name="digits")
    return ir.Model(graph, ir_version=8, producer_name="models/digits.py")


def main(folder: Path = HERE) -> None:
    """Write the three files into `folder`."""
    weights, biases, pixels, labels = train()
    ir.save(to_onnx(weights, biases), folder / MODEL.name)
    np.savez_compressed(folder / DATA.name, pixels=pixels)
    np.save(folder / LABELS.name, labels.astype(np.uint8))
    print(f"wrote {MODEL.name}, {DATA.name} and {LABELS.name} into {folder}", file=sys.stderr)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
