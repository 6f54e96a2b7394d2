"""What the demo and the benchmarks run on: a model, real samples to calibrate on, and others to judge by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnxruntime.quantization import QuantType, quantize_dynamic

from models import digits as digits_model
from models import text
from models.fetch import fetch


@dataclass(frozen=True)
class Subject:
    """A model and its data.

    Attributes:
        name: for people.
        model: the .onnx file.
        calibration, held_out: folders of .npz feeds; no sample is in both.
        output: the output that the model is used for.
        rows: what one feed is, for people.
    """

    name: str
    model: Path
    calibration: Path
    held_out: Path
    output: str
    rows: str


def minilm(folder: Path, *, calibration: int = 16, held_out: int = 32) -> Subject:
    """paraphrase-MiniLM-L3-v2 and newsgroup posts; `calibration` and `held_out` count feeds of 8 texts.

    Raises:
        FetchError: the model or the text cannot be had.
    """
    model = fetch("paraphrase-minilm-l3")
    halves = {}
    for half, feeds in (("train", calibration), ("test", held_out)):
        posts = text.posts(half, feeds * text.BATCH)
        halves[half] = text.write(text.feeds([p.text for p in posts]), folder / half)
    return Subject(
        name="paraphrase-MiniLM-L3-v2",
        model=model,
        calibration=halves["train"],
        held_out=halves["test"],
        output="461",  # [batch, 384], the sentence embedding; the exporter gave it no better name
        rows=f"{text.BATCH} texts of {text.LENGTH} word pieces",
    )


def digits(folder: Path, *, batch: int = 96) -> Subject:
    """The committed perceptron and its held-out images, the first half of them to calibrate on."""
    with np.load(digits_model.DATA) as data:
        pixels = data["pixels"]
    feeds = [{"pixels": pixels[i : i + batch]} for i in range(0, len(pixels) - batch + 1, batch)]
    half = len(feeds) // 2
    return Subject(
        name="digits (a perceptron)",
        model=digits_model.MODEL,
        calibration=text.write(feeds[:half], folder / "train"),
        held_out=text.write(feeds[half:], folder / "test"),
        output="logits",
        rows=f"{batch} images of 8x8 pixels",
    )


def feeds_of(folder: Path) -> list[dict[str, np.ndarray]]:
    """The feeds in `folder`, in the order of their names."""
    return [dict(np.load(path)) for path in sorted(folder.glob("*.npz"))]


def dynamic_int8(model: Path, to: Path, *, per_channel: bool = False) -> Path:
    """Write onnxruntime's own dynamic int8 of `model`: what we are compared with."""
    quantize_dynamic(model, to, per_channel=per_channel, weight_type=QuantType.QInt8)
    return to
