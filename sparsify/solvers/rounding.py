"""Round what a mask keeps to integers, each error made good by the weights that are still to come.

    minimise tr((W' - W)^T H (W' - W))   over w'_kn = q_kn s_n, q_kn in -L..L, zero outside the mask

Cyclic coordinate descent: input by input, every kept weight goes to the grid point that is best given all others,

    w'_kn = grid(w_kn + sum_{j != k} H_kj (w_jn - w'_jn) / H_kk)

The first round starts from real numbers, so that it is rounding with error feedback; later rounds mend it. Unlike GPTQ
it needs no inverse of H, which would be another one for every column's support.

The scale of a column is the one of a few clipped ranges that rounds to nearest with the least error. Its largest weight
is fixed at L or -L, so that max |w'| / L is the scale again: who quantises W' later (see quantize.py) finds the same q.

Source: Behdin et al., "QuantEase: Optimization-based Quantization for Language Models", 2023; Frantar et al., "GPTQ",
2022, for the order and the block updates.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparsify.patterns import Mask
from sparsify.solvers.quantize import LEVELS

F32 = npt.NDArray[np.float32]

BLOCK = 64  # inputs between two updates of all residuals
_RANGES = (1.0, 0.95, 0.9, 0.85, 0.8)  # of a column's largest weight


def round_kept(
    weight: F32, start: F32, mask: Mask, moment: npt.NDArray[np.floating], levels: int = LEVELS, sweeps: int = 2
) -> F32:
    """W' float32 [K, N] on the grid, zero outside `mask` [K, N].

    Args:
        weight: the W [K, N] that W' is to stand for.
        start: real weights [K, N] on the mask, the better the better.
        moment: H [K, K], positive on the diagonal where the mask keeps anything.
        levels: L, the largest |q|; 1 to 127.
        sweeps: over all inputs.
    """
    h = moment.astype(np.float32)
    diagonal = np.diag(h)
    scale = _scales(np.where(mask, start, np.float32(0)), diagonal, levels)
    current = np.where(mask, start, np.float32(0))
    top, columns = np.abs(current).argmax(axis=0), np.arange(start.shape[1])
    largest = current[top, columns]
    current[top, columns] = np.sign(largest) * np.float32(levels) * scale
    free = mask & (largest != 0)
    free[top, columns] = False
    residual = h @ (weight - current)
    for _ in range(sweeps):
        for first in range(0, len(h), BLOCK):
            rows = slice(first, min(first + BLOCK, len(h)))
            step = _descend(current[rows], residual[rows], free[rows], h[rows, rows], scale, levels)
            residual -= h[:, rows] @ step
    return np.asarray(np.rint(current / scale) * scale, np.float32)  # sums of steps are whole numbers up to rounding


def _scales(weight: F32, diagonal: F32, levels: int) -> F32:
    """s [N] for W [K, N]; 1 where that would be no normal float32."""
    top = np.abs(weight).max(axis=0, initial=0).astype(np.float32)
    best: F32 = np.ones_like(top)
    least = np.full(top.shape, np.inf, np.float32)
    for part in _RANGES:
        scale = _stable(np.float32(part) * top, levels)
        rounded = np.clip(np.rint(weight / scale), -levels, levels) * scale
        error = np.einsum("kn,k->n", np.square(weight - rounded), diagonal)
        best = np.asarray(np.where(error < least, scale, best), np.float32)
        least = np.minimum(error, least)
    return best


def _stable(top: F32, levels: int) -> F32:
    """Scales s of about top / L with 17 significant bits: q s is exact for |q| <= 127, and (s L) / L is s again."""
    scale = np.asarray(top / np.float32(levels), np.float32)
    scale = (scale.view(np.uint32) & np.uint32(0xFFFFFF80)).view(np.float32)
    return np.asarray(np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1)), np.float32)


def _descend(current: F32, residual: F32, free: Mask, h: F32, scale: F32, levels: int) -> F32:
    """One sweep over a block: `current` [B, N] changes in place; by how much [B, N]."""
    before, gradient = current.copy(), residual.copy()
    diagonal, limit = np.diag(h), np.float32(levels)
    for k in range(len(h)):
        if diagonal[k] <= 0:
            continue
        wanted = (current[k] + gradient[k] / diagonal[k]) / scale
        grid = np.minimum(np.maximum(np.rint(wanted), -limit), limit) * scale  # np.clip takes thrice as long
        step = np.where(free[k], grid - current[k], np.float32(0))
        current[k] += step
        gradient[k:] -= h[k:, k, None] * step
    return np.asarray(current - before, np.float32)
