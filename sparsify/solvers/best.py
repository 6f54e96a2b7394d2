"""The better of two prunings: never worse than the optimal brain surgeon, column by column.

ADMM finds better masks nearly always, but nothing bounds a heuristic for a problem that is NP-hard. So each column of W
is pruned both ways, by `admm` and by `obs`, both are brought to the same grid, and what displaces less under H stays:

    e_n(W') = (w'_n - w_n)^T H (w'_n - w_n),   W'_n = the candidate of the smaller e_n

Where `obs` wins, its mask is refitted and rounded as ADMM's was, and stays only if that is better still. Patterns in
which columns compete for what a matrix may keep are decided as a whole.

On all-MiniLM-L6-v2 no column of 32:64 or 16:64 was won by `obs`; exchanging a kept for a dropped weight within a block
of 64 as long as a pair lowers e_n, with refits in between, took 0.1 to 0.3 % off ADMM's errors, less than a few more of
its iterations: there is no such search here.

Source: see `admm` and `obs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from sparsify.parallel import in_order
from sparsify.patterns import Mask, Pattern
from sparsify.solvers import admm, obs
from sparsify.solvers.factors import Factors
from sparsify.solvers.moments import share
from sparsify.solvers.quantize import quantize
from sparsify.solvers.refit import refit
from sparsify.solvers.rounding import round_kept

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        mask: of what may be non-zero, [K, N].
        weight: W' float32 [K, N].
        error: sum of e_n over tr(W^T H W): the share of the outputs' energy that W' displaces; see
            `moments.relative_error`.
        surgeon_error: the same of what `obs` alone would have made, on the same grid.
        won: share of the columns in which `obs` was better than ADMM.
    """

    mask: Mask
    weight: F32
    error: float
    surgeon_error: float
    won: float


def prune(weight: F32, factors: Factors, pattern: Pattern, sparsity: float = 0.0, *, levels: int = 0) -> Found:
    """The better of `admm.prune` and `obs.prune` for W [K, N]; arguments and errors as there."""
    solve = partial(_solve, factors=factors, pattern=pattern, sparsity=sparsity, levels=levels)
    mask, found = np.zeros(weight.shape, bool), np.zeros(weight.shape, np.float32)
    own = surgeon = energy = 0.0
    won = 0
    slices = [*admm.columns(weight.shape[1], pattern)]
    parts = in_order(solve, (weight[:, part] for part in slices), len(slices))
    for columns, part in zip(slices, parts, strict=True):
        mask[:, columns], found[:, columns] = part.mask, part.weight
        own, surgeon, energy, won = own + part.own, surgeon + part.surgeon, energy + part.energy, won + part.won
    return Found(mask, found, share(own, energy), share(surgeon, energy), won / max(weight.shape[1], 1))


@dataclass(frozen=True)
class _Part:
    """Some columns: the mask and W' [K, n], sums of e_n, what the dense outputs hold, columns that `obs` won."""

    mask: Mask
    weight: F32
    own: float
    surgeon: float
    energy: float
    won: int


def _solve(weight: F32, factors: Factors, pattern: Pattern, sparsity: float, levels: int) -> _Part:
    factors.prepare((rho for rho, _ in admm.SCHEDULE), upper=True)
    mask, found = admm.prune(weight, factors, pattern, sparsity, levels=levels)
    other, surgeon = obs.prune(weight, factors, pattern, sparsity)
    if levels:
        q, scale = quantize(surgeon, levels)
        surgeon = np.asarray(q * scale, np.float32)
    own, others = _errors(weight, found, factors), _errors(weight, surgeon, factors)
    apart = bool(pattern.m) or pattern.by_column
    better = others < own if apart else np.full(own.shape, others.sum() < own.sum())
    if better.any():
        mask[:, better] = other[:, better]
        found[:, better], own[better] = _mended(
            weight[:, better], surgeon[:, better], other[:, better], factors, levels
        )
    energy = _errors(weight, np.zeros_like(weight), factors)
    return _Part(mask, found, float(own.sum()), float(others.sum()), float(energy.sum()), int(better.sum()))


def _mended(weight: F32, surgeon: F32, mask: Mask, factors: Factors, levels: int) -> tuple[F32, F64]:
    """`surgeon` [K, n], refitted on its mask and rounded in columns where that helps, and its e_n."""
    scale = factors.scale[:, None]
    fitted = factors.back(refit(weight * scale, surgeon * scale, mask, factors.moment, admm.REFIT))
    if levels:
        fitted = round_kept(weight, fitted, mask & (scale > 0), factors.unscaled, levels)
    before, after = _errors(weight, surgeon, factors), _errors(weight, fitted, factors)
    return np.where(after < before, fitted, surgeon), np.minimum(before, after)


def _errors(weight: F32, changed: F32, factors: Factors) -> F64:
    """e_n float64 [n]."""
    displacement = changed.astype(np.float64) - weight
    return np.asarray(np.einsum("kn,kn->n", displacement, factors.given @ displacement), np.float64)
