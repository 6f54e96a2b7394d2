"""Inputs for solvers."""

from __future__ import annotations

import numpy as np


def correlated(tokens: int, k: int, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W [K, N], X [T, K] whose inputs depend on each other as activations do, H."""
    rng = np.random.default_rng(seed)
    rank = max(k // 4, 1)
    x = rng.standard_normal((tokens, rank)) @ rng.standard_normal((rank, k)) + rng.standard_normal((tokens, k))
    x *= rng.uniform(0.1, 10, k)
    w = rng.standard_normal((k, n)).astype(np.float32)
    return w, x, x.T @ x
