"""What a layer's inputs look like before and after the layers upstream were changed, and what to aim at then.

Let X [T, K] be a layer's inputs in the dense model and X' in the one being pruned, layer after layer. Keeping X' W'
near X' W lets errors pile up. The layer can answer for some of those upstream instead:

    minimise ||X' W' + 1 b'^T - (X W + 1 b^T + R - R')||^2

where R and R' are what the layer's output is added to (a residual connection), if there is one. Fitting this entirely
would fit noise of few calibration tokens; a step of `correction` in [0, 1] towards the solution, pulled to W by a ridge
of LAMBDA of each input's energy, generalises:

    W_t = W + correction (H' + LAMBDA diag H')^-1 ((C - H') W + E),
    H' = X'^T X',  C = X'^T X,  E = X'^T (R - R')

A bias that may change takes up the means: H', C and E are then centred, and b' = b + mean(target) - mean(X') W'.
W_t takes the place of W in any solver for H'.

Source: Frantar, Alistarh, "SparseGPT", 2023 (inputs of the pruned model); Li et al., "GPTAQ", 2025, and Arai, Ichikawa,
"Quantization Error Propagation", 2025 (targets of the dense one, partial steps); Nagel et al., "Data-Free Quantization
Through Weight Equalization and Bias Correction", 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from sparsify.solvers.symmetric import Symmetric

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

LAMBDA = 0.01
_MOST = 10.0  # ridge that rounding may ask for; beyond, something is not finite


@dataclass(frozen=True)
class Products:
    """What one batch of tokens adds to `Statistics`; see `products`."""

    tokens: int
    moment: F32
    sum: F64
    dense_sum: F64
    cross: F32 | None = None
    pull: F32 | None = None
    residual_sum: F64 | None = None


def products(inputs: F32, dense: F32 | None = None, residual: F32 | None = None, weight: F32 | None = None) -> Products:
    """Sums over a batch.

    Args:
        inputs: X' [t, K], finite.
        dense: X [t, K]; X' when None.
        residual: R - R' [t, N]; zeros when None.
        weight: W [K, N] where only this one will be asked for: X'^T ((X - X') W + R - R') [K, N] is then summed instead
            of C - H' and E. For N < K that is less work.
    """
    own: F64 = inputs.sum(axis=0, dtype=np.float64)
    gap: F32 | None = None if dense is None else dense - inputs
    pull = residual
    if weight is not None and gap is not None:
        moved: F32 = gap @ weight
        pull = moved if residual is None else moved + residual
    return Products(
        len(inputs),
        inputs.T @ inputs,
        own,
        own if dense is None else dense.sum(axis=0, dtype=np.float64),
        None if gap is None or weight is not None else inputs.T @ gap,
        None if pull is None else inputs.T @ pull,
        None if residual is None else residual.sum(axis=0, dtype=np.float64),
    )


class Statistics:
    """Sums over tokens; `moment` is H', `tokens` is T.

    float32 within a batch, float64 across batches: a batch has few enough tokens for its own sum to be accurate.
    """

    def __init__(self, inputs: int) -> None:
        self.tokens = 0
        self.moment: F64 = np.zeros((inputs, inputs))
        self._cross: F64 | None = None  # C - H'; None while the inputs are those of the dense model, or not asked for
        self._sum, self._dense_sum = np.zeros(inputs), np.zeros(inputs)
        self._pull: F64 | None = None  # E, or (C - H') W + E for the one W that was given with the inputs
        self._residual_sum: F64 | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "moment": Symmetric(self.moment)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, moment=state["moment"].matrix)

    def add(self, batch: Products) -> None:
        """Count the tokens of a batch."""
        self.tokens += batch.tokens
        self.moment += batch.moment
        self._sum += batch.sum
        self._dense_sum += batch.dense_sum
        self._cross = _plus(self._cross, batch.cross)
        self._pull = _plus(self._pull, batch.pull)
        self._residual_sum = _plus(self._residual_sum, batch.residual_sum)

    def merge(self, other: Statistics) -> None:
        """Count the tokens that another one counted."""
        self.tokens += other.tokens
        self.moment += other.moment
        self._sum += other._sum
        self._dense_sum += other._dense_sum
        self._cross = _plus(self._cross, other._cross)
        self._pull = _plus(self._pull, other._pull)
        self._residual_sum = _plus(self._residual_sum, other._residual_sum)

    def second_moment(self, *, centred: bool) -> F64:
        """H' [K, K], of X' or of X' less its mean."""
        if not centred or not self.tokens:
            return self.moment
        return self.moment - np.outer(self._sum, self._sum / self.tokens)

    def target(self, weight: F32, correction: float, *, centred: bool) -> F32:
        """W_t [K, N] for W [K, N]."""
        if correction == 0 or not self.tokens or (self._cross is None and self._pull is None):
            return weight
        moment = self.second_moment(centred=centred)
        scale = np.sqrt(np.maximum(np.diag(moment), 0))
        inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > _DEAD * scale.max(initial=0))
        system = moment * inverse[:, None] * inverse
        factor = _factor(system)
        found = np.empty(weight.shape, np.float32)
        for at in range(0, weight.shape[1], _COLUMNS):
            part = slice(at, at + _COLUMNS)
            gap = self._gap(weight, part, centred=centred) * inverse[:, None]
            step = scipy.linalg.cho_solve(factor, gap, overwrite_b=True, check_finite=False)
            found[:, part] = weight[:, part] + correction * step * inverse[:, None]
        return found

    def bias_shift(self, weight: F32, changed: F32, correction: float) -> F32:
        """b' - b [N]: what keeps the mean output where it was, once W [K, N] is W'.

        The whole step goes to the bias, whatever `correction` is: N means are known far better than K N weights.
        """
        if not self.tokens:
            return np.zeros(weight.shape[1], np.float32)
        before = self._dense_sum if correction else self._sum
        shift = (before @ weight - self._sum @ changed) / self.tokens
        if self._residual_sum is not None and correction:
            shift = shift + self._residual_sum / self.tokens
        return np.asarray(shift, np.float32)

    def _gap(self, whole: F32, part: slice, *, centred: bool) -> F64:
        """(C - H') W + E [K, n] of some columns: how far X'^T (target) is from X'^T X' W."""
        weight = whole[:, part]
        gap = np.zeros(weight.shape) if self._cross is None else self._cross @ weight
        if self._pull is not None:
            gap = gap + self._pull[:, part]
        if centred:
            mean = (self._dense_sum - self._sum) @ weight / self.tokens
            if self._residual_sum is not None:
                mean = mean + self._residual_sum[part] / self.tokens
            gap = gap - np.outer(self._sum, mean)
        return gap


def _factor(system: F64) -> tuple[F64, bool]:
    """The Cholesky factor of `system` [K, K], of unit diagonal, and as small a multiple of I as it takes.

    Centred moments of inputs that hardly move are differences of nearly equal numbers: what is left may be no moment.
    """
    ridge = LAMBDA
    while True:
        system[np.diag_indices_from(system)] = 1 + ridge
        try:
            return scipy.linalg.cho_factor(system, lower=True, check_finite=False)  # type: ignore[no-any-return]
        except scipy.linalg.LinAlgError:
            if ridge > _MOST:
                raise
            ridge *= 10


def _plus(total: F64 | None, more: npt.NDArray[np.floating] | None) -> F64 | None:
    if more is None or total is None:
        return total if more is None else more.astype(np.float64)
    total += more
    return total


_COLUMNS = 4096  # of a target that are solved for at a time, in float64: a decoder's head has 150,000
_DEAD = 1e-9  # of the largest input: what is smaller was constant, or never there, up to rounding
