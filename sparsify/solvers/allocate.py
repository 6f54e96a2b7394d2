"""Which layer gives up how many weights: a sparsity for each, for an average sparsity or a drift not to be passed.

Layer l has n_l weights and a curve d_l(s): the drift of the whole model when l alone is pruned to sparsity s. With the
assumption that drifts (squared errors) of different layers add up,

    minimise sum_l d_l(s_l)   subject to   sum_l n_l s_l >= S sum_l n_l,   s_l among a few options

is a multiple-choice knapsack. Its relaxation is solved exactly by walking down the lower convex hulls of all curves in
the order of their slopes: the next step is always the one that costs least drift for a weight. What is returned is that
walk's state when S is reached, or the last one whose sum of drifts is within a limit. It is the optimum for the S that
it reaches, which is above the S asked for by less than one step of one layer.

Between the sparsities at which a curve was measured log d is taken as linear in s: errors of pruning grow about
exponentially there. Nothing is extrapolated: options beyond the measured range are not taken.

Source: Sinha, Zoltners, "The Multiple-Choice Knapsack Problem", 1979; sensitivity per layer as the cost: Han et al.,
"Learning both Weights and Connections", 2015, section 3.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_ROUNDING = 1e-9  # of shares computed in different ways
_TINY = 1e-12  # a drift below this is rounding: its logarithm would rule the interpolation


@dataclass(frozen=True)
class Curve:
    """What pruning one layer alone does to the model.

    Attributes:
        weights: how many the layer has.
        sparsities: where it was measured, ascending, each between 0 and 1.
        drifts: there; relative squared errors, not negative.
    """

    weights: int
    sparsities: tuple[float, ...]
    drifts: tuple[float, ...]

    def at(self, sparsity: float) -> float:
        """The drift at `sparsity`, which lies in the measured range."""
        logs = np.log(np.maximum(np.maximum.accumulate(self.drifts), _TINY))
        return float(np.exp(np.interp(sparsity, self.sparsities, logs)))


def allocate(
    curves: Sequence[Curve], options: Sequence[float], target: float, limit: float = float("inf")
) -> list[float]:
    """One of `options` for each curve.

    Args:
        curves: of all layers.
        options: sparsities to choose from.
        target: S, the average sparsity over all weights at which to stop; 1 to go on to the limit.
        limit: of the sum of drifts.

    Raises:
        ValueError: no option lies in the measured range of a curve.
    """
    hulls = [_hull(curve, options) for curve in curves]
    steps = sorted(
        (_slope(*ends) / curves[layer].weights, layer, step)
        for layer, hull in enumerate(hulls)
        for step, ends in enumerate(itertools.pairwise(hull), start=1)
    )
    place = [0] * len(hulls)
    wanted = target * sum(curve.weights for curve in curves) * (1 - _ROUNDING)
    zeros = sum(curve.weights * hull[0][0] for curve, hull in zip(curves, hulls, strict=True))
    drift = sum(hull[0][1] for hull in hulls)
    for slope, layer, step in steps:
        more = curves[layer].weights * (hulls[layer][step][0] - hulls[layer][step - 1][0])
        if zeros >= wanted or drift + slope * more > limit:
            break
        place[layer], zeros, drift = step, zeros + more, drift + slope * more
    return [hull[at][0] for hull, at in zip(hulls, place, strict=True)]


def _hull(curve: Curve, options: Sequence[float]) -> list[tuple[float, float]]:
    """(s, d(s)) of the options on the lower convex hull of a curve, by rising s."""
    low, high = curve.sparsities[0] - _ROUNDING, curve.sparsities[-1] + _ROUNDING
    points = [(s, curve.at(s)) for s in sorted(options) if low <= s <= high]
    if not points:
        raise ValueError(f"no option in the measured range {low:g} to {high:g}")
    hull: list[tuple[float, float]] = []
    for point in points:
        while len(hull) > 1 and _slope(hull[-1], point) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(point)
    return hull


def _slope(a: tuple[float, float], b: tuple[float, float]) -> float:
    return (b[1] - a[1]) / (b[0] - a[0])
