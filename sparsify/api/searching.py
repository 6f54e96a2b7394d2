"""The search as `optimize` uses it: its samples, its plan on a model, and what it says in a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from sparsify import data as feeds
from sparsify import tune
from sparsify.budget import Budget
from sparsify.data import Feed
from sparsify.errors import UsageError
from sparsify.pipeline import Pipeline

_EVERY = 4  # of so many feeds one checks plans, the others teach
EFFORTS = range(4)


@dataclass(frozen=True)
class Searched:
    """What a search found.

    Attributes:
        learn: the feeds that it learned from.
        every: all passes that a plan may need.
        plan: to be carried out; empty to leave the model as it is.
    """

    found: tune.Found
    learn: Sequence[Feed]
    every: Pipeline
    plan: tune.Plan

    @property
    def met(self) -> bool:
        """Whether the budget can be kept; where no form of any layer pays there is nothing that could break it."""
        return bool(self.found.plan) or not self.found.trials

    @property
    def pipeline(self) -> Pipeline:
        """The passes that make the model of the plan."""
        return tune.applied(self.every, self.plan)

    def mark(self, model: ir.Model) -> None:
        """Tell the layers of `model` what was chosen for them."""
        tune.mark(model, self.plan)

    def verdict(self, changed: bool, reason: str) -> tuple[bool, str]:
        """Whether the model changes, and why or why not."""
        if not self.found.trials:
            return False, "no form of any layer is faster here"
        if self.met:
            return changed, reason
        point = "; ".join(_closest(self.found).what)
        return changed and bool(
            self.plan
        ), f"none of {len(self.found.trials)} plans kept the budget, the closest: {point}"

    def tell(self, table: list[dict[str, Any]]) -> None:
        """Put into each node's row what else it could have become, at which time and drift."""
        for row in table:
            options = self.found.options.get(row["name"])
            if options is None:
                continue
            taken = str(self.plan.get(row["name"], "left"))
            row["drift_share"] = next(o.drift for o in options if str(o.choice) == taken)
            row["dense_ms"] = self.found.dense_ms[row["name"]]
            row["alternatives"] = [{"choice": str(o.choice), "ms": o.cost, "drift": o.drift} for o in options]
            if taken == "left":
                row["reason"] = _why_left(len(options))
            else:
                row["rewritten_ms"] = next(o.cost for o in options if str(o.choice) == taken)

    def to_dict(self, latency: dict[str, Any] | None) -> dict[str, Any]:
        """As JSON carries it; `latency` as measured of the whole models."""
        saved = next((t.saved_ms for t in self.found.trials if t.plan == self.plan), None)
        predicted = None if saved is None or latency is None else latency["base"]["median_ms"] - saved
        return {"predicted_ms": predicted, "trials": [trial.to_dict() for trial in self.found.trials]}


def search(
    model: ir.Model,
    calibration: Sequence[Feed],
    budgets: Sequence[Budget],
    *,
    seed: int,
    best_effort: bool,
    **settings: Any,
) -> Searched | None:
    """Search with a part of `calibration`, check plans with the rest; None where it cannot be divided.

    With `best_effort` a budget that no plan kept leaves the plan that came closest.
    """
    try:
        learn, check = _divided(calibration, seed, model)
    except feeds.IndivisibleError:
        return None
    found = tune.search(model, learn, check, budgets, seed=seed, **settings)
    plan = _closest(found).plan if best_effort and found.trials and not found.plan else found.plan
    return Searched(found, learn, tune.pipeline(settings["target"], settings["memory"]), plan)


def _closest(found: tune.Found) -> tune.Trial:
    return min(found.trials, key=lambda t: t.usage)


def check_effort(effort: int) -> None:
    """Raise UsageError where there is no such effort."""
    if effort not in EFFORTS:
        raise UsageError(f"there is no effort {effort}", where="--effort", hint="0 to 3")


def _divided(calibration: Sequence[Feed], seed: int, model: ir.Model) -> tuple[Sequence[Feed], Sequence[Feed]]:
    if len(calibration) < _EVERY:
        return feeds.split(calibration, seed, model.graph.inputs)
    rest = [feed for i, feed in enumerate(calibration) if i % _EVERY]
    return rest, calibration[::_EVERY]


def _why_left(options: int) -> str:
    if options == 1:
        return "no form of it is at least 1.05 times as fast here"
    return f"none of {options - 1} faster forms fits into the budget beside what other layers gain more by"
