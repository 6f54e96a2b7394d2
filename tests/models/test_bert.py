"""The builder of all-MiniLM-L6-v2, on weights of its own: what a BERT encoder computes, by NumPy."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from scipy.special import erf, softmax

from models import bert, safetensors
from sparsify import runtime

CONFIG = bert.Config(hidden=8, heads=2, layers=2, epsilon=1e-5)
INNER, WORDS, PLACES = 16, 11, 7


@pytest.fixture
def weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (WORDS, 8),
        "embeddings.position_embeddings.weight": (PLACES, 8),
        "embeddings.token_type_embeddings.weight": (2, 8),
    }
    norms = ["embeddings.LayerNorm"]
    for i in range(CONFIG.layers):
        p = f"encoder.layer.{i}."
        norms += [p + "attention.output.LayerNorm", p + "output.LayerNorm"]
        dense = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
        for name, shape in {
            **dict.fromkeys(dense, (8, 8)),
            "intermediate.dense": (16, 8),
            "output.dense": (8, 16),
        }.items():
            shapes |= {f"{p}{name}.weight": shape, f"{p}{name}.bias": shape[:1]}
    shapes |= {f"{n}.{part}": (8,) for n in norms for part in ("weight", "bias")}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def expected(weights: dict[str, np.ndarray], ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The sentence embedding in float64."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + CONFIG.epsilon)
        return scaled * w[name + ".weight"] + w[name + ".bias"]

    p = "embeddings."
    x = w[p + "word_embeddings.weight"][ids] + w[p + "position_embeddings.weight"][: ids.shape[1]]
    x = norm(x + w[p + "token_type_embeddings.weight"][0], p + "LayerNorm")
    for i in range(CONFIG.layers):
        p = f"encoder.layer.{i}."
        heads = []
        query, key, value = (linear(x, f"{p}attention.self.{n}") for n in ("query", "key", "value"))
        for head in (slice(0, 4), slice(4, 8)):
            scores = query[..., head] @ key[..., head].transpose(0, 2, 1) / 2
            heads.append(softmax(np.where(mask[:, None] == 1, scores, -np.inf), axis=-1) @ value[..., head])
        joined = linear(np.concatenate(heads, axis=-1), p + "attention.output.dense")
        x = norm(joined + x, p + "attention.output.LayerNorm")
        inner = linear(x, p + "intermediate.dense")
        inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
        x = norm(linear(inner, p + "output.dense") + x, p + "output.LayerNorm")
    mean = (x * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def test_the_model_is_a_bert_encoder(weights: dict[str, np.ndarray], rng: np.random.Generator):
    feed = {
        "input_ids": rng.integers(0, WORDS, (3, 5)),
        "attention_mask": np.array([[1] * 5, [1] * 3 + [0] * 2, [1] + [0] * 4]),
    }
    found = runtime.run(runtime.session(bert.build(CONFIG, weights)), feed)["sentence_embedding"]
    wanted = expected(weights, feed["input_ids"], feed["attention_mask"])
    # Some 20 float32 operations in a row on numbers of size 10, sums of 16 terms; unit vectors come out.
    assert np.abs(found - wanted).max() < 20 * 16 * 10 * 2.0**-24


def test_safetensors_are_read(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([7], np.int64)}
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (array, kind) in zip(arrays, zip(arrays.values(), ("F32", "I64"), strict=True), strict=True):
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": offsets}
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    found = safetensors.read(path)
    assert {n: (a.dtype, a.tolist()) for n, a in found.items()} == {n: (a.dtype, a.tolist()) for n, a in arrays.items()}
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"Q32"'))
    with pytest.raises(ValueError, match="Q32"):
        safetensors.read(path)
