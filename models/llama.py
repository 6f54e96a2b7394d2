"""SmolLM2-135M as an ONNX file, built from the GGUF file that the package index has.

The graph is what torch's exporter would write for a Llama decoder without a cache: linear layers are MatMul with
W [inputs, outputs], RMSNorm is decomposed, the head is the embedding transposed.

    input    input_ids  int64 [batch, tokens]
    output   logits     float [batch, tokens, words]

The file holds the weights in blocks of four-bit integers (Q4_1): what is pruned here was rounded before.

Source: Touvron et al., "LLaMA", 2023; Su et al., "RoFormer", 2021; Ainslie et al., "GQA", 2023; the weights:
https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct, Apache-2.0; the format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from models.fetch import cache_folder, fetch
from models.graphs import Graph

_FUTURE = -1e9  # added to the score of a later token: its softmax is 0 in float32


@dataclass(frozen=True)
class Config:
    """The sizes of a Llama decoder."""

    hidden: int
    heads: int
    key_heads: int
    layers: int
    epsilon: float
    base: float  # of the rotary angles

    @property
    def head(self) -> int:
        """Features of a head."""
        return self.hidden // self.heads


def smollm2() -> Path:
    """The path of SmolLM2-135M.onnx, built if this builder has not built it before.

    Raises:
        FetchError: the weights cannot be had.
    """
    path = _built("SmolLM2-135M", ".onnx")
    if not path.exists():
        reader = _reader()
        config, weights = _read(reader)
        part = path.with_suffix(f".{os.getpid()}.part")
        onnx.save(build(config, weights), part)
        part.replace(path)
    return path


def tokenizer() -> Path:
    """The path of its tokenizer.json, for the `tokenizers` package: pairs of bytes, digits alone."""
    path = _built("SmolLM2-tokenizer", ".json")
    if not path.exists():
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

        fields = _reader().fields
        words, merges, kinds = (fields[f"tokenizer.ggml.{n}"].contents() for n in ("tokens", "merges", "token_type"))
        made = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, [tuple(pair.split(" ")) for pair in merges]))
        digits, bytes_ = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
        made.decoder = decoders.ByteLevel()
        control = 3  # a token type of the format
        made.add_special_tokens(
            [AddedToken(w, special=True) for w, k in zip(words, kinds, strict=True) if k == control]
        )
        made.save(str(path))
    return path


def build(config: Config, weights: Mapping[str, npt.NDArray[Any]]) -> onnx.ModelProto:
    """The decoder; `weights` are named as in the GGUF file, with linear layers [outputs, inputs].

    Raises:
        KeyError: a weight is missing.
    """
    g = Graph(weights)
    cos, sin, future = _positions(g, config)

    def turned(x: str) -> str:
        """Each pair of features (i, i + head / 2) turned by the angle of its place; x [B, heads, T, head]."""
        first, second = g.add_many(2, "Split", x, g.ints(config.head // 2, config.head // 2), axis=-1)
        other = g.add("Concat", g.add("Neg", second), first, axis=-1)
        return g.add("Add", g.add("Mul", x, cos), g.add("Mul", other, sin))

    x = g.add("Gather", g.weight("token_embd.weight"), "input_ids")
    for i in range(config.layers):
        p = f"blk.{i}."
        normed = _norm(g, x, p + "attn_norm.weight", config)
        query = turned(_heads(g, normed, p + "attn_q", config.heads, config))
        key = turned(_heads(g, normed, p + "attn_k", config.key_heads, config))
        value = _heads(g, normed, p + "attn_v", config.key_heads, config)
        mixed = _attention(g, config, query, key, value, future)
        x = g.add("Add", x, g.linear(mixed, p + "attn_output"))
        normed = _norm(g, x, p + "ffn_norm.weight", config)
        gate = g.linear(normed, p + "ffn_gate")
        inner = g.add("Mul", g.add("Mul", gate, g.add("Sigmoid", gate)), g.linear(normed, p + "ffn_up"))
        x = g.add("Add", x, g.linear(inner, p + "ffn_down"))
    x = _norm(g, x, "output_norm.weight", config)
    g.name(g.add("MatMul", x, g.add("Transpose", g.weight("token_embd.weight"), perm=[1, 0])), "logits")
    shape = ["batch", "tokens"]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, shape)]
    words = len(weights["token_embd.weight"])
    return g.model("llama", inputs, [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [*shape, words])])


def _positions(g: Graph, config: Config) -> tuple[str, str, str]:
    """cos and sin [T, head] of each place's angles, and what hides later tokens [T, T]."""
    length = g.add("Squeeze", g.add("Shape", "input_ids", start=1, end=2), g.ints(0))
    zero, one = (g.const(f"int_{i}", np.array(i, np.int64)) for i in (0, 1))
    places = g.add("Range", zero, length, one)
    frequencies = config.base ** (-np.arange(0, config.head, 2) / config.head)
    half = g.add(
        "Mul",
        g.add("Unsqueeze", g.add("Cast", places, to=TensorProto.FLOAT), g.ints(1)),
        g.const("frequencies", frequencies[None].astype(np.float32)),
    )
    angles = g.add("Concat", half, half, axis=-1)
    later = g.add("Less", g.add("Unsqueeze", places, g.ints(1)), g.add("Unsqueeze", places, g.ints(0)))
    future = g.add("Mul", g.add("Cast", later, to=TensorProto.FLOAT), g.number(_FUTURE))
    return g.add("Cos", angles), g.add("Sin", angles), future


def _norm(g: Graph, x: str, name: str, config: Config) -> str:
    """x / sqrt(mean x^2 + epsilon), times a weight a feature."""
    mean = g.add("ReduceMean", g.add("Mul", x, x), axes=[-1], keepdims=1)
    root = g.add("Sqrt", g.add("Add", mean, g.number(config.epsilon)))
    return g.add("Mul", g.add("Mul", x, g.add("Reciprocal", root)), g.weight(name))


def _heads(g: Graph, x: str, name: str, heads: int, config: Config) -> str:
    """A linear layer's output as [B, heads, T, head]."""
    split = g.add("Reshape", g.linear(x, name), g.ints(0, 0, heads, config.head))
    return g.add("Transpose", split, perm=[0, 2, 1, 3])


def _attention(g: Graph, config: Config, query: str, key: str, value: str, future: str) -> str:
    """Every head's attention joined [B, T, H]; a key serves heads / key_heads queries."""
    grouped = g.add("Reshape", query, g.ints(0, config.key_heads, config.heads // config.key_heads, -1, config.head))
    keys = g.add("Unsqueeze", g.add("Transpose", key, perm=[0, 1, 3, 2]), g.ints(2))
    scores = g.add("Div", g.add("MatMul", grouped, keys), g.number(config.head**0.5))
    shares = g.add("Softmax", g.add("Add", scores, future), axis=-1)
    mixed = g.add("MatMul", shares, g.add("Unsqueeze", value, g.ints(2)))
    joined = g.add("Transpose", g.add("Reshape", mixed, g.ints(0, config.heads, -1, config.head)), perm=[0, 2, 1, 3])
    return g.add("Reshape", joined, g.ints(0, 0, config.hidden))


def _built(name: str, suffix: str) -> Path:
    """Where what this builder makes lies: beside the weights, named after the builder's own text."""
    made_by = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    return cache_folder() / fetch("smollm2-gguf").parent.name / f"{name}-{made_by}{suffix}"


def _reader() -> Any:
    from gguf import GGUFReader

    return GGUFReader(fetch("smollm2-gguf"))


def _read(reader: Any) -> tuple[Config, dict[str, npt.NDArray[np.float32]]]:
    """Sizes and float32 weights."""
    from gguf.quants import dequantize

    def field(name: str) -> Any:
        return reader.fields[f"llama.{name}"].contents()

    config = Config(
        hidden=field("embedding_length"),
        heads=field("attention.head_count"),
        key_heads=field("attention.head_count_kv"),
        layers=field("block_count"),
        epsilon=field("attention.layer_norm_rms_epsilon"),
        base=field("rope.freq_base"),
    )
    weights = {t.name: np.asarray(dequantize(t.data, t.tensor_type), np.float32) for t in reader.tensors}
    for name, weight in weights.items():
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            weights[name] = _halves(weight, config.head)
    return config, weights


def _halves(weight: npt.NDArray[np.float32], head: int) -> npt.NDArray[np.float32]:
    """The format keeps the features (i, i + head / 2) of a rotary pair side by side: back to halves."""
    outputs, inputs = weight.shape
    pairs = weight.reshape(outputs // head, head // 2, 2, inputs)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(outputs, inputs))
