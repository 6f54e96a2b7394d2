"""Prune by the alternating direction method of multipliers, then refit on the support it found.

    minimise 1/2 tr((W' - W)^T H (W' - W))   subject to W' having the pattern

split into a quadratic in D and a projection Z, with multipliers U and penalty rho:

    Z = (D + U) projected on the pattern (its largest entries kept)
    U = U + D - Z
    D = (H + rho I)^-1 (H W + rho (Z - U))

H is first scaled to unit diagonal (see moments.normalized), so that "largest" counts what a weight does to the
outputs. rho grows in a few steps (SCHEDULE), which lets the support settle slowly and then freezes it. A step costs
one inverse, which layers with the same inputs share (see `factors.Factors`), an iteration 2 K^2 N operations. On
layers of a sentence transformer these 35 iterations end up to 1 % below the error of 60 whose rho grows in each, to
1000; 130 iterations in thirteen steps end 2.5 % below it, 20 iterations in four steps 3 to 6 % above it, a rho that
stays below 0.5 ends 20 % above it.

Against OBS/SparseGPT, which fixes the mask block by block and never looks back, all weights of a column compete
until the end.

Source: Boyd et al., "Distributed Optimization and Statistical Learning via ADMM", 2011, chapter 9; for pruning:
Boža, "Fast and Effective Weight Update for Pruned Large Language Models", 2024; Meng et al., "ALPS", 2024.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from sparsify.parallel import in_order
from sparsify.patterns import Mask, Pattern
from sparsify.solvers.factors import Factors
from sparsify.solvers.refit import refit
from sparsify.solvers.rounding import round_kept

F32 = npt.NDArray[np.float32]

Schedule = tuple[tuple[float, int], ...]

SCHEDULE = tuple((rho, 5) for rho in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2))  # rho, iterations
QUICK = tuple((rho, 4) for rho in (0.1, 0.4, 1.6))  # to see how much a layer can lose, not to keep the result
REFIT, QUICK_REFIT = 8, 5  # iterations; 20 change no error by more than 0.2 %, what ADMM ends with is that near
COLUMNS = 192  # solved together: enough for BLAS, few enough to keep several cores busy


def prune(
    weight: F32,
    moment: npt.NDArray[np.floating] | Factors,
    pattern: Pattern,
    sparsity: float = 0.0,
    *,
    levels: int = 0,
    quick: bool = False,
) -> tuple[Mask, F32]:
    """The mask [K, N] and W' float32 [K, N] that displace the outputs of W [K, N] little.

    Args:
        weight: float32 [K, N], finite.
        moment: H [K, K], the second moment of the layer's inputs; may be singular, may have dead inputs.
        pattern: where non-zeros may stand.
        sparsity: share of zeros for an unstructured pattern.
        levels: when above 0, W' is rounded to that many steps on either side of zero, a scale a column.
        quick: a third of the work; the error is a little higher.

    Raises:
        ValueError: H or W is not finite, or their shapes do not fit.
    """
    factors = moment if isinstance(moment, Factors) else Factors(moment)
    if len(factors.scale) != len(weight) or not np.isfinite(weight).all():
        raise ValueError("weights must be finite [K, N] and the moment [K, K]")
    schedule = QUICK if quick else SCHEDULE
    solve = partial(_solve, factors=factors, pattern=pattern, sparsity=sparsity, schedule=schedule, levels=levels)
    slices = [weight[:, part] for part in columns(weight.shape[1], pattern)]
    parts = [*in_order(solve, slices, len(slices))]
    if not parts:
        return np.zeros(weight.shape, bool), weight.copy()
    return np.concatenate([mask for mask, _ in parts], axis=1), np.concatenate([w for _, w in parts], axis=1)


def columns(count: int, pattern: Pattern) -> Iterator[slice]:
    """Columns to solve together: all of them where they compete for what a whole matrix may keep."""
    width = COLUMNS if pattern.m or pattern.by_column else max(count, 1)
    return (slice(i, i + width) for i in range(0, count, width))


def _solve(
    weight: F32, factors: Factors, pattern: Pattern, sparsity: float, schedule: Schedule, levels: int
) -> tuple[Mask, F32]:
    """The mask and W', both [K, N]."""
    factors.prepare(rho for rho, _ in schedule)
    scaled = weight * factors.scale[:, None]
    mask, found = _search(scaled, factors, pattern, sparsity, schedule)
    start = np.where(mask, found, np.float32(0))
    fitted = refit(scaled, start, mask, factors.moment, QUICK_REFIT if schedule is QUICK else REFIT)
    kept = factors.back(fitted)
    if levels:
        # The grid is one of weights, not of scaled weights: H goes back to where it came from.
        kept = round_kept(weight, kept, mask & (factors.scale > 0)[:, None], factors.unscaled, levels)
    return mask, kept


def _search(weight: F32, factors: Factors, pattern: Pattern, sparsity: float, schedule: Schedule) -> tuple[Mask, F32]:
    """ADMM on scaled W; the last mask and the last D, all [K, N]."""
    # Columns as rows: what a block of a pattern compares lies side by side in memory.
    dense = np.ascontiguousarray(weight.T)
    target = dense @ factors.moment
    # Z holds what is kept of D + U, and the next U the rest: Z - U is D + U with the sign of the rest changed. All of
    # it is written to the same memory: fresh memory for each step took a third of the time besides the products.
    multipliers, difference = np.zeros_like(dense), np.empty_like(dense)
    for rho, iterations in schedule:
        inverse = factors.inverse(rho)
        for _ in range(iterations):
            np.add(dense, multipliers, out=difference)
            kept = _kept(difference, pattern, sparsity)
            np.multiply(difference, ~kept, out=multipliers)
            difference -= multipliers
            difference -= multipliers
            difference *= np.float32(rho)
            difference += target
            np.matmul(difference, inverse, out=dense)
    mask = pattern.project(np.abs(dense + multipliers).T, sparsity)
    return mask, dense.T


def _kept(values: F32, pattern: Pattern, sparsity: float) -> Mask:
    """The mask [N, K] of what the pattern keeps of `values` [N, K], ties aside: they are all kept."""
    columns, inputs = values.shape
    if not pattern.m or inputs % pattern.m:
        return pattern.project(np.abs(values).T, sparsity).T
    blocks = np.abs(values).reshape(-1, pattern.m)
    bound = np.partition(blocks, pattern.m - pattern.n, axis=1)[:, pattern.m - pattern.n, None]
    return np.asarray((blocks >= bound).reshape(columns, inputs))
