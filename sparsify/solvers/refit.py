"""Least squares on a given support: the best weights where the mask allows any.

    minimise tr((W' - W)^T H (W' - W))   over W' that is zero outside the mask

Each column is its own problem, H_SS w'_S = (H w)_S with S the column's support. All columns are solved at once by
conjugate gradients preconditioned with diag(H); the mask is applied to every residual, so that one product with the
whole H serves all supports.

Source: Hestenes, Stiefel, "Methods of Conjugate Gradients", 1952; its use after pruning: Meng et al., "ALPS:
Improved Optimization for Highly Sparse One-Shot Pruning", 2024, section 3.2.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparsify.patterns import Mask

F32 = npt.NDArray[np.float32]


def refit(weight: F32, start: F32, mask: Mask, moment: F32, iterations: int) -> F32:
    """W' float32 [K, N] on `mask` [K, N], from `start` [K, N] (zero outside the mask) towards the minimum.

    Args:
        weight: the dense W [K, N].
        start: where to begin; the error never ends higher than there.
        moment: H [K, K], symmetric positive definite.
        iterations: of conjugate gradients.
    """
    inverse_diagonal = (1 / np.diag(moment))[:, None]
    current = start.copy()
    residual = np.where(mask, moment @ (weight - current), 0)
    preconditioned = residual * inverse_diagonal
    direction = preconditioned.copy()
    norm = np.einsum("kn,kn->n", residual, preconditioned)
    for _ in range(iterations):
        image = np.where(mask, moment @ direction, 0)
        curvature = np.einsum("kn,kn->n", direction, image)
        step = np.divide(norm, curvature, out=np.zeros_like(norm), where=curvature > _TINY)
        current += step * direction
        residual -= step * image
        preconditioned = residual * inverse_diagonal
        previous, norm = norm, np.einsum("kn,kn->n", residual, preconditioned)
        direction = (
            preconditioned + np.divide(norm, previous, out=np.zeros_like(norm), where=previous > _TINY) * direction
        )
    return np.asarray(current, np.float32)


_TINY = 1e-30  # a column whose residual is this small has converged
