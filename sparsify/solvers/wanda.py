"""Prune by weights and activations: a weight counts as much as what it adds to the output.

    score_kn = |w_kn| sqrt(H_kk),   H_kk = sum of x_k^2 over tokens;   W' = W * mask

Weights that are kept keep their values. Scores are compared within a column (one output), as in the paper: for
unstructured sparsity give a pattern per column. H = I is pruning by magnitude.

Source: Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language Models", 2023.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparsify.patterns import Mask, Pattern

F32 = npt.NDArray[np.float32]


def prune(weight: F32, moment: npt.NDArray[np.floating], pattern: Pattern, sparsity: float = 0.0) -> tuple[Mask, F32]:
    """The mask [K, N] and W' float32 [K, N]; arguments and errors as in `admm.prune`. Of H only the diagonal counts."""
    energy = np.diag(moment)
    if len(energy) != len(weight) or not np.isfinite(energy).all() or not np.isfinite(weight).all():
        raise ValueError("weights must be finite [K, N] and the moment finite [K, K]")
    mask = pattern.project(np.abs(weight) * np.sqrt(np.maximum(energy, 0))[:, None], sparsity)
    return mask, np.where(mask, weight, np.float32(0))
