"""all-MiniLM-L6-v2 as an ONNX file, built from its published weights.

The package index has the weights but no ONNX file. The graph is what torch's exporter would write for a BERT encoder
with a mean-pooling head: linear layers are MatMul with W [inputs, outputs] and an Add of the bias.

    inputs   input_ids, attention_mask   int64 [batch, tokens]
    outputs  last_hidden_state           float [batch, tokens, 384]
             sentence_embedding          float [batch, 384], the mean over unmasked tokens, of unit length

Source: Devlin et al., "BERT", 2018; Reimers, Gurevych, "Sentence-BERT", 2019; the weights:
https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2, Apache-2.0.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from models import safetensors
from models.fetch import cache_folder, fetch
from models.graphs import Graph

_MASKED = -1e9  # added to the score of a masked token: its softmax is 0 in float32


def minilm_l6() -> Path:
    """The path of all-MiniLM-L6-v2.onnx, built if this builder has not built it before.

    Raises:
        FetchError: the weights cannot be had.
    """
    weights, settings = fetch("minilm-l6-weights"), fetch("minilm-l6-config")
    # The folder of the weights is named after their hash; the builder's own text says what was made of them.
    made_by = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    path = cache_folder() / weights.parent.name / f"all-MiniLM-L6-v2-{made_by}.onnx"
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}.part")
        onnx.save(build(Config.of(json.loads(settings.read_text())), safetensors.read(weights)), part)
        part.replace(path)
    return path


@dataclass(frozen=True)
class Config:
    """The sizes of a BERT encoder."""

    hidden: int
    heads: int
    layers: int
    epsilon: float

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Config:
        """From what `config.json` says."""
        return cls(
            settings["hidden_size"],
            settings["num_attention_heads"],
            settings["num_hidden_layers"],
            settings["layer_norm_eps"],
        )


def build(config: Config, weights: Mapping[str, npt.NDArray[Any]]) -> onnx.ModelProto:
    """The encoder with a mean-pooling head; `weights` are named as in the published file.

    Raises:
        KeyError: a weight is missing.
    """
    g = Graph(weights)
    mask = g.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    blocked = g.add("Mul", g.add("Sub", g.number(1), g.add("Unsqueeze", mask, g.ints(1, 2))), g.number(_MASKED))
    x = _embeddings(g, config)
    for i in range(config.layers):
        prefix = f"encoder.layer.{i}."
        attended = _attention(g, config, x, blocked, prefix + "attention.")
        x = _norm(g, g.add("Add", attended, x), prefix + "attention.output.LayerNorm", config.epsilon)
        inner = _gelu(g, g.linear(x, prefix + "intermediate.dense"))
        x = _norm(
            g, g.add("Add", g.linear(inner, prefix + "output.dense"), x), prefix + "output.LayerNorm", config.epsilon
        )
    g.name(x, "last_hidden_state")
    g.name(_pooled(g, x, mask), "sentence_embedding")
    return g.model("bert", *_interface(config.hidden))


def _embeddings(g: Graph, config: Config) -> str:
    p = "embeddings."
    length = g.add("Shape", "input_ids", start=1, end=2)
    positions = g.add("Slice", g.weight(p + "position_embeddings.weight"), g.ints(0), length, g.ints(0))
    words = g.add("Gather", g.weight(p + "word_embeddings.weight"), "input_ids")
    placed = g.add("Add", words, positions)
    first_segment = g.const(p + "token_type", g.weights[p + "token_type_embeddings.weight"][0])
    return _norm(g, g.add("Add", placed, first_segment), p + "LayerNorm", config.epsilon)


def _attention(g: Graph, config: Config, x: str, blocked: str, prefix: str) -> str:
    """Every head's attention, joined and projected; x [B, T, H]."""
    size = config.hidden // config.heads
    split = g.ints(0, 0, config.heads, size)

    def heads(name: str, perm: list[int]) -> str:
        return g.add("Transpose", g.add("Reshape", g.linear(x, f"{prefix}self.{name}"), split), perm=perm)

    query, key, value = heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]), heads("value", [0, 2, 1, 3])
    scores = g.add("Add", g.add("Div", g.add("MatMul", query, key), g.number(size**0.5)), blocked)
    mixed = g.add("MatMul", g.add("Softmax", scores, axis=-1), value)
    joined = g.add("Reshape", g.add("Transpose", mixed, perm=[0, 2, 1, 3]), g.ints(0, 0, config.hidden))
    return g.linear(joined, prefix + "output.dense")


def _gelu(g: Graph, x: str) -> str:
    """x (1 + erf(x / sqrt 2)) / 2."""
    erf = g.add("Erf", g.add("Div", x, g.number(2**0.5)))
    return g.add("Mul", g.add("Mul", x, g.add("Add", erf, g.number(1))), g.number(0.5))


def _pooled(g: Graph, x: str, mask: str) -> str:
    """The mean of x [B, T, H] over unmasked tokens, of unit length."""
    counted = g.add("Unsqueeze", mask, g.ints(2))
    total = g.add("ReduceSum", g.add("Mul", x, counted), g.ints(1), keepdims=0)
    count = g.add("Max", g.add("ReduceSum", counted, g.ints(1), keepdims=0), g.number(1e-9))
    mean = g.add("Div", total, count)
    return g.add("Div", mean, g.add("Max", g.add("ReduceL2", mean, axes=[1], keepdims=1), g.number(1e-12)))


def _norm(g: Graph, x: str, name: str, epsilon: float) -> str:
    scale, shift = g.weight(name + ".weight"), g.weight(name + ".bias")
    return g.add("LayerNormalization", x, scale, shift, axis=-1, epsilon=epsilon)


def _interface(hidden: int) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    tokens = ["batch", "tokens"]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, tokens) for n in ("input_ids", "attention_mask")]
    outputs = [
        helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*tokens, hidden]),
        helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", hidden]),
    ]
    return inputs, outputs
