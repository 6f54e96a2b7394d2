"""The second moment of a layer's inputs, and the error that a change of weights makes under it.

For inputs X [T, K] of T tokens, H = X^T X [K, K]. Replacing W [K, N] by W' changes the outputs by

    ||X W' - X W||_F^2 = tr(D^T H D),   D = W' - W

so H is all that a layer-wise solver needs to know of the data. An input that was always zero (a dead input) has a
zero row and column in H: its weights cannot be seen by the data, and any solver may drop them.

Source: LeCun, Denker, Solla, "Optimal Brain Damage", 1990; Hassibi, Stork, "Optimal Brain Surgeon", 1993.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

_COLUMNS = 2**12  # at a time: the head of a language model has 150,000, and four times its size was float64


def relative_error(weight: Floats, changed: Floats, moment: Floats) -> float:
    """tr(D^T H D) / tr(W^T H W): the share of the outputs' energy that changing W [K, N] to W' [K, N] displaces.

    0 when nothing changed; infinity when outputs that were all zero became something else.
    """
    moment64 = moment.astype(np.float64)
    displaced = energy = 0.0
    for at in range(0, weight.shape[1], _COLUMNS):
        before, after = (w[:, at : at + _COLUMNS].astype(np.float64) for w in (weight, changed))
        displaced += float(np.einsum("kn,kn->", after - before, moment64 @ (after - before)))
        energy += float(np.einsum("kn,kn->", before, moment64 @ before))
    return share(displaced, energy)


def share(displaced: float, energy: float) -> float:
    """Of energy what was displaced; 0 when nothing was, infinity when there was no energy and something was."""
    if energy > 0:
        return max(displaced, 0.0) / energy
    return 0.0 if displaced <= 0 else float("inf")


def normalized(
    moment: Floats, damping: float, floor: float = 0.0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """H~ = S^-1 (H + floor m I) S^-1 + damping I, float32 [K, K], and S = sqrt(diag H) [K]; m is the mean of diag H.

    Solving for S W under H~ is solving for W under H, with every input on the same scale. Dead inputs get S = 0
    and stand alone in H~. Damping makes H~ positive definite when there were fewer tokens than inputs; the floor holds
    back weights of inputs that hardly ever move, which would otherwise grow to whatever fits a few tokens.

    Raises:
        ValueError: H is not square or not finite.
    """
    if moment.ndim != 2 or moment.shape[0] != moment.shape[1] or not np.isfinite(moment).all():
        raise ValueError("a second moment must be a finite square matrix")
    energy = np.maximum(np.diag(moment).astype(np.float64), 0)
    scale = np.sqrt(energy)
    safe = np.where(scale > 0, scale, 1.0)
    out = moment / safe[:, None] / safe
    mean = energy[energy > 0].mean() if energy.any() else 0.0
    held = np.minimum(np.divide(floor * mean, energy, out=np.zeros_like(energy), where=energy > 0), _MOST)
    out[np.diag_indices_from(out)] = 1.0 + damping + held
    return out.astype(np.float32), scale.astype(np.float32)


_MOST = 1e6  # times an input's own energy: more would be lost on float32
