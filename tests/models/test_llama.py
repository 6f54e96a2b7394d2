"""The builder of SmolLM2, on weights of its own: what a Llama decoder computes, by NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from models import llama
from sparsify import runtime

CONFIG = llama.Config(hidden=12, heads=6, key_heads=2, layers=2, epsilon=1e-5, base=100.0)
INNER, WORDS = 16, 11


@pytest.fixture
def weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    keys = CONFIG.key_heads * CONFIG.head
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (WORDS, 12), "output_norm.weight": (12,)}
    for i in range(CONFIG.layers):
        for name, shape in {
            "attn_norm": (12,),
            "attn_q": (12, 12),
            "attn_k": (keys, 12),
            "attn_v": (keys, 12),
            "attn_output": (12, 12),
            "ffn_norm": (12,),
            "ffn_gate": (INNER, 12),
            "ffn_up": (INNER, 12),
            "ffn_down": (12, INNER),
        }.items():
            shapes[f"blk.{i}.{name}.weight"] = shape
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def expected(weights: dict[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
    """Logits [T, WORDS] of one text in float64, token by token and head by head."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    head, tokens = CONFIG.head, len(ids)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + CONFIG.epsilon) * w[name]

    def turned(x: np.ndarray) -> np.ndarray:
        pairs = x[:, : head // 2] + 1j * x[:, head // 2 :]
        speeds = CONFIG.base ** (-2.0 * np.arange(head // 2) / head)
        pairs = pairs * np.exp(1j * np.arange(tokens)[:, None] * speeds)
        return np.concatenate([pairs.real, pairs.imag], axis=1)

    x = w["token_embd.weight"][ids]
    for i in range(CONFIG.layers):
        p = f"blk.{i}."
        y = norm(x, p + "attn_norm.weight")
        heads = []
        for h in range(CONFIG.heads):
            k = h // (CONFIG.heads // CONFIG.key_heads)
            query = turned(y @ w[p + "attn_q.weight"][h * head : (h + 1) * head].T)
            key = turned(y @ w[p + "attn_k.weight"][k * head : (k + 1) * head].T)
            scores = query @ key.T / np.sqrt(head)
            scores[np.triu_indices(tokens, 1)] = -np.inf
            heads.append(softmax(scores, axis=-1) @ (y @ w[p + "attn_v.weight"][k * head : (k + 1) * head].T))
        x = x + np.concatenate(heads, axis=1) @ w[p + "attn_output.weight"].T
        y = norm(x, p + "ffn_norm.weight")
        gate = y @ w[p + "ffn_gate.weight"].T
        inner = gate / (1 + np.exp(-gate)) * (y @ w[p + "ffn_up.weight"].T)
        x = x + inner @ w[p + "ffn_down.weight"].T
    return norm(x, "output_norm.weight") @ w["token_embd.weight"].T


def test_the_graph_is_a_llama_decoder(weights, rng):
    ids = rng.integers(0, WORDS, (2, 7))
    session = runtime.session(llama.build(CONFIG, weights), threads=1)
    (logits,) = session.run(["logits"], {"input_ids": ids})
    # A hundred roundings of 6e-8 deep; softmax and SiLU pass errors on no larger than they come, RMSNorm relative ones.
    scale = max(np.abs(expected(weights, row)).max() for row in ids)
    for row, found in zip(ids, logits, strict=True):
        assert np.abs(found - expected(weights, row)).max() < 100 * 2.0**-23 * scale


def test_rotary_pairs_are_put_back_into_halves():
    # Two heads of 4 outputs: the file has 0, 2, 1, 3 of each head side by side as pairs (0, 2), (1, 3).
    stored = np.array([[0], [2], [1], [3], [10], [12], [11], [13]], np.float32)
    assert llama._halves(stored, 4).ravel().tolist() == [0, 1, 2, 3, 10, 11, 12, 13]
