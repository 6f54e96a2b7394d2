"""Prune by the optimal brain surgeon, input by input, each error pushed onto the inputs that are still to come.

With L = (H + damping)^-1 and its Cholesky factor L = U^T U, U upper triangular, for inputs k = 0, 1, ...:

    score_kn = w_kn^2 / U_kk^2                      decided for a block of inputs when its first is reached
    e_n = (w_kn - w'_kn) / U_kk,   w_jn -= e_n U_kj   for all j > k

Source: Hassibi, Stork, "Optimal Brain Surgeon", 1993; Frantar, Alistarh, "SparseGPT", 2023, algorithm 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparsify.patterns import Mask, Pattern
from sparsify.solvers.factors import Factors

F32 = npt.NDArray[np.float32]

BLOCK = 128  # inputs whose mask is decided together when the pattern is unstructured


def prune(
    weight: F32, moment: npt.NDArray[np.floating] | Factors, pattern: Pattern, sparsity: float = 0.0
) -> tuple[Mask, F32]:
    """The mask [K, N] and W' float32 [K, N]; arguments and errors as in `admm.prune`."""
    factors = moment if isinstance(moment, Factors) else Factors(moment)
    if len(factors.scale) != len(weight) or not np.isfinite(weight).all():
        raise ValueError("weights must be finite [K, N] and the moment [K, K]")
    upper = factors.upper()
    current = weight * factors.scale[:, None]
    mask = np.zeros(weight.shape, bool)
    block = pattern.m or BLOCK
    for first in range(0, len(weight), block):
        last = min(first + block, len(weight))
        rows = slice(first, last)
        scores = np.abs(current[rows]) / np.diag(upper)[rows, None]  # the root: blocks of a pattern add up squares
        mask[rows] = pattern.project(scores, sparsity)
        errors = _prune_block(current[rows], mask[rows], upper[rows, rows])
        current[last:] -= upper[rows, last:].T @ errors
    return mask, factors.back(np.where(mask, current, np.float32(0)))


def _prune_block(rows: F32, mask: Mask, upper: F32) -> F32:
    """Prune `rows` [B, N] in place; the errors [B, N] that later inputs are to make good."""
    errors = np.zeros_like(rows)
    for first in range(0, len(rows), _NEAR):
        last = min(first + _NEAR, len(rows))
        for k in range(first, last):
            kept = np.where(mask[k], rows[k], np.float32(0))
            errors[k] = (rows[k] - kept) / upper[k, k]
            rows[k + 1 : last] -= upper[k, k + 1 : last, None] * errors[k]
            rows[k] = kept
        rows[last:] -= upper[first:last, last:].T @ errors[first:last]
    return errors


_NEAR = 16  # inputs whose errors go to later ones of a block in one product
