"""The whole curve of cost over drift: the knapsack's frontier, and some of its plans built and audited.

Predicted points come from `knapsack.solve` at limits spread over the frontier: costs and drifts that add up. Built ones
say what that is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import onnx_ir as ir

from sparsify.data import Feed
from sparsify.tune import knapsack
from sparsify.tune.options import Problem, Settings
from sparsify.tune.plan import Plan, build

T = TypeVar("T")

_POINTS = 32  # of the curve at most
BUILT = (2, 3, 5, 8)  # of them are built, by effort


@dataclass(frozen=True)
class Point:
    """A plan on the frontier.

    Attributes:
        plan: by layer.
        cost: of all layers together, milliseconds or bytes.
        drift: predicted, summed over the layers: relative squared error of the outputs.
    """

    plan: Plan
    cost: float
    drift: float


def points(found: Problem) -> tuple[Point, ...]:
    """The frontier from the model as it is to the cheapest form of every layer; each cheaper than the one before."""
    limits = [0.0, *knapsack.frontier(found.options)]
    swept: list[Point] = []
    for limit in _spread(limits, _POINTS):
        taken = knapsack.solve(found.options, limit)
        plan = {name: option.choice for name, option in zip(found.names, taken, strict=True)}
        point = Point(plan, sum(o.cost for o in taken), sum(o.drift for o in taken))
        if not swept or point.cost < swept[-1].cost:
            swept.append(point)
    return tuple(swept)


def to_build(swept: Sequence[Point], settings: Settings) -> list[Point]:
    """Points spread evenly over the curve, its cheap end among them; the model as it is needs no building."""
    changed = [point for point in swept if any(choice.format for choice in point.plan.values())]
    return _spread(changed[::-1], BUILT[settings.effort])[::-1]


def built(model: ir.Model, point: Point, learn: Sequence[Feed], settings: Settings) -> ir.Model:
    """The model of that plan; `model` is left as it is."""
    candidate = model.clone()
    build(candidate, settings.pipeline, point.plan, learn)
    return candidate


def _spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of `items`, evenly, first and last among them."""
    if len(items) <= count:
        return [*items]
    return [items[round(i * (len(items) - 1) / max(count - 1, 1))] for i in range(count)]
