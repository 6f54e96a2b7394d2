"""Prune by the alternating direction method of multipliers, then refit on the support it found.

    minimise 1/2 tr((W' - W)^T H (W' - W))   subject to W' having the pattern

split into a quadratic in D and a projection Z, with scaled multipliers U and penalty rho:

    Z = (D + U) projected on the pattern (its largest entries kept)
    U = U + D - Z
    D = (H + rho I)^-1 (H W + rho (Z - U))

H is first scaled to unit diagonal (see moments.normalized), so that "largest" counts what a weight does to the
outputs. One eigendecomposition H = Q diag(e) Q^T serves every rho: D = Q ((Q^T rhs) / (e + rho)). rho grows from 0.1
by a factor an iteration, which lets the support settle slowly and then freezes it.

Against OBS/SparseGPT, which fixes the mask block by block and never looks back, all weights of a column compete
until the end. Cost: one eigendecomposition, and 4 K^2 N operations an iteration.

Source: Boyd et al., "Distributed Optimization and Statistical Learning via ADMM", 2011, chapter 9; for pruning:
Boža, "Fast and Effective Weight Update for Pruned Large Language Models", 2024; Meng et al., "ALPS", 2024.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.linalg

from sparsify.patterns import Mask, Pattern
from sparsify.solvers.moments import normalized
from sparsify.solvers.refit import refit

F32 = npt.NDArray[np.float32]

DAMPING = 0.01  # of H at unit diagonal: 1 % of an input's own energy
RHO_FIRST, RHO_LAST = 0.1, 1e3
SETTLE = 4  # iterations at the first rho


def prune(
    weight: F32, moment: npt.NDArray[np.floating], pattern: Pattern, sparsity: float = 0.0, iterations: int = 60
) -> tuple[Mask, F32]:
    """The mask [K, N] and W' float32 [K, N] that displace the outputs of W [K, N] little.

    Args:
        weight: float32 [K, N], finite.
        moment: H [K, K], the second moment of the layer's inputs; may be singular, may have dead inputs.
        pattern: where non-zeros may stand.
        sparsity: share of zeros for an unstructured pattern.
        iterations: of ADMM.

    Raises:
        ValueError: H or W is not finite, or their shapes do not fit.
    """
    if moment.shape != (weight.shape[0], weight.shape[0]) or not np.isfinite(weight).all():
        raise ValueError("weights must be finite [K, N] and the moment [K, K]")
    scaled_moment, scale = normalized(moment, DAMPING)
    scaled = weight * scale[:, None]
    mask, found = _search(scaled, scaled_moment, pattern, sparsity, iterations)
    fitted = refit(scaled, np.where(mask, found, np.float32(0)), mask, scaled_moment)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    return mask, np.asarray(fitted * inverse[:, None], np.float32)


def _search(weight: F32, moment: F32, pattern: Pattern, sparsity: float, iterations: int) -> tuple[Mask, F32]:
    """ADMM on scaled W and H; the last mask and the last D, all [K, N]."""
    values, vectors = scipy.linalg.eigh(moment, overwrite_a=False, check_finite=False)
    growth = (RHO_LAST / RHO_FIRST) ** (1 / max(iterations - SETTLE, 1))
    target = moment @ weight
    dense, multipliers, rho = weight.copy(), np.zeros_like(weight), np.float32(RHO_FIRST)
    mask = np.zeros(weight.shape, bool)
    for i in range(iterations):
        candidate = dense + multipliers
        mask = pattern.project(np.abs(candidate), sparsity)
        sparse = np.where(mask, candidate, np.float32(0))
        multipliers = candidate - sparse
        right = vectors.T @ (target + rho * (sparse - multipliers))
        dense = vectors @ (right / (values + rho)[:, None])
        rho = np.float32(rho * growth) if i >= SETTLE else rho
    return mask, dense
