"""One option for each layer: the least time whose drifts add up to no more than a limit.

    minimise sum_l t_l(o_l)   subject to   sum_l d_l(o_l) <= D,   o_l among the options of layer l

is a multiple-choice knapsack. Its Lagrangian relaxation is solved exactly by walking along the lower convex hulls of
all layers' options in the plane of drift and time, always taking the step that saves most time for a unit of drift.
What is left of D then goes to any single exchange that still fits, largest saving first. The walk alone is off the
optimum by less than the saving of one step; all its states together are the convex frontier of time over drift.

Source: Sinha, Zoltners, "The Multiple-Choice Knapsack Problem", 1979; Everett, "Generalized Lagrange Multiplier Method
for Solving Problems of Optimum Allocation of Resources", 1963.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from sparsify.rewrite import Choice


@dataclass(frozen=True)
class Option:
    """A way to run one layer.

    Attributes:
        choice: the way.
        cost: milliseconds, or bytes where size is the goal.
        drift: of the whole model when this layer alone runs so; squared errors that are taken to add up.
    """

    choice: Choice
    cost: float
    drift: float


def solve(options: Sequence[Sequence[Option]], limit: float) -> list[Option]:
    """The options to take, one for each layer.

    Args:
        options: of each layer; the first leaves it as it is and drifts by nothing.
        limit: D.
    """
    hulls = [_hull(of_layer) for of_layer in options]
    place = [0] * len(hulls)
    drift = 0.0
    for _, layer, step in _steps(hulls):
        if step != place[layer] + 1:  # a step before it did not fit
            continue
        more = hulls[layer][step].drift - hulls[layer][step - 1].drift
        if drift + more <= limit:
            place[layer], drift = step, drift + more
    taken = [hull[at] for hull, at in zip(hulls, place, strict=True)]
    return _filled(options, taken, limit)


def frontier(options: Sequence[Sequence[Option]]) -> list[float]:
    """The limits at which the walk takes a step, ascending: between two of them `solve` finds little new."""
    hulls = [_hull(of_layer) for of_layer in options]
    steps = ((hulls[layer][step].drift - hulls[layer][step - 1].drift) for _, layer, step in _steps(hulls))
    return list(itertools.accumulate(steps))


def _steps(hulls: Sequence[Sequence[Option]]) -> list[tuple[float, int, int]]:
    """(drift for a unit of cost saved, layer, step), cheapest first."""
    return sorted(
        (_slope(before, after), layer, step)
        for layer, hull in enumerate(hulls)
        for step, (before, after) in enumerate(itertools.pairwise(hull), start=1)
    )


def _hull(options: Sequence[Option]) -> list[Option]:
    """The lower convex hull from the option of least drift to that of least cost."""
    hull: list[Option] = []
    for option in sorted(options, key=lambda o: (o.drift, o.cost)):
        if hull and option.cost >= hull[-1].cost:
            continue
        while len(hull) > 1 and _slope(hull[-1], option) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(option)
    return hull


def _slope(before: Option, after: Option) -> float:
    return (after.drift - before.drift) / (before.cost - after.cost)


def _filled(options: Sequence[Sequence[Option]], taken: list[Option], limit: float) -> list[Option]:
    """`taken` after exchanges of single options while one fits and saves."""
    drift = sum(option.drift for option in taken)
    while True:
        exchanges = [
            (option.cost - taken[layer].cost, layer, option)
            for layer, of_layer in enumerate(options)
            for option in of_layer
            if option.cost < taken[layer].cost and drift - taken[layer].drift + option.drift <= limit
        ]
        if not exchanges:
            return taken
        _, layer, option = min(exchanges, key=lambda e: (e[0], e[1]))
        drift += option.drift - taken[layer].drift
        taken[layer] = option
