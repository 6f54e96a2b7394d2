"""The search as `optimize` uses it: its samples, its plan on a model, and what it says in a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from sparsify import data as feeds
from sparsify import tune
from sparsify.budget import Budget
from sparsify.data import Feed
from sparsify.errors import UsageError
from sparsify.machine import threads as default_threads
from sparsify.pipeline import Pipeline
from sparsify.tune import costfile

_EVERY = 4  # of so many feeds one checks plans, the others teach
EFFORTS = range(4)


@dataclass(frozen=True)
class Searched:
    """What a search found.

    Attributes:
        learn: the feeds that it learned from.
        settings: of the search.
        plan: to be carried out; empty to leave the model as it is.
    """

    found: tune.Found
    learn: Sequence[Feed]
    settings: tune.Settings
    plan: tune.Plan

    @property
    def met(self) -> bool:
        """Whether the budget can be kept; where no form of any layer pays there is nothing that could break it."""
        return bool(self.found.plan) or not self.found.trials

    @property
    def pipeline(self) -> Pipeline:
        """The passes that make the model of the plan."""
        return tune.applied(self.settings.pipeline, self.plan)

    def mark(self, model: ir.Model) -> None:
        """Tell the layers of `model` what was chosen for them."""
        tune.mark(model, self.plan)

    def verdict(self, changed: bool, reason: str) -> tuple[bool, str]:
        """Whether the model changes, and why or why not."""
        if not self.found.trials:
            return False, f"no form of any layer is {self._better} here"
        if self.met:
            return changed, reason
        point = "; ".join(_closest(self.found).what)
        return changed and bool(
            self.plan
        ), f"none of {len(self.found.trials)} plans kept the budget, the closest: {point}"

    def tell(self, table: list[dict[str, Any]]) -> None:
        """Put into each node's row what else it could have become, at which time and drift."""
        for row in table:
            options = self.found.problem.by_name.get(row["name"])
            if options is None:
                continue
            taken = str(self.plan.get(row["name"], "left"))
            row["drift_share"] = next(o.drift for o in options if str(o.choice) == taken)
            row["alternatives"] = [{"choice": str(o.choice), self._unit: o.cost, "drift": o.drift} for o in options]
            if self._unit == "ms":
                row["dense_ms"] = options[0].cost
            if taken == "left":
                row["reason"] = self._why_left(len(options))
            elif self._unit == "ms":
                row["rewritten_ms"] = next(o.cost for o in options if str(o.choice) == taken)

    def to_dict(self, latency: dict[str, Any] | None) -> dict[str, Any]:
        """As JSON carries it; `latency` as measured of the whole models, here."""
        saved, share = next((t.saved for t in self.found.trials if t.plan == self.plan), None), self.found.share
        predicted = None
        if saved is not None and share is not None and latency is not None:
            predicted = latency["base"]["median_ms"] * (1 - saved * share)
        return {
            "goal": self.settings.goal,
            "predicted_ms": predicted,
            "trials": [trial.to_dict(self._unit) for trial in self.found.trials],
        }

    @property
    def _unit(self) -> str:
        return "bytes" if self.settings.goal == "size" else "ms"

    @property
    def _better(self) -> str:
        return "smaller" if self.settings.goal == "size" else "faster"

    def _why_left(self, options: int) -> str:
        if options == 1:
            return f"no form of it is at least 1.05 times {'smaller' if self._unit == 'bytes' else 'as fast here'}"
        return f"none of {options - 1} {self._better} forms fits the budget beside what other layers gain more by"


def search(
    model: ir.Model,
    calibration: Sequence[Feed],
    budgets: Sequence[Budget],
    settings: tune.Settings,
    *,
    best_effort: bool,
) -> Searched | None:
    """Search with a part of `calibration`, check plans with the rest; None where it cannot be divided.

    With `best_effort` a budget that no plan kept leaves the plan that came closest.
    """
    try:
        learn, check = divided(calibration, settings.seed, model)
    except feeds.IndivisibleError:
        return None
    found = tune.search(model, learn, check, budgets, settings)
    plan = _closest(found).plan if best_effort and found.trials and not found.plan else found.plan
    return Searched(found, learn, settings, plan)


def _closest(found: tune.Found) -> tune.Trial:
    return min(found.trials, key=lambda t: t.usage)


def settings_of(
    *, goal: str, effort: int, costs: str | Path | None, threads: int | None, **others: Any
) -> tune.Settings:
    """What a search is told. A file of costs also says for how many threads.

    Raises:
        UsageError: there is no such effort or goal, or the file of costs is for other threads.
        InputError: a file of costs that cannot be used.
    """
    if effort not in EFFORTS:
        raise UsageError(f"there is no effort {effort}", where="--effort", hint="0 to 3")
    if goal not in tune.GOALS:
        raise UsageError(f"there is no goal `{goal}`", where="--goal", hint=f"one of {', '.join(tune.GOALS)}")
    carried = None if costs is None else costfile.read(Path(costs))
    if carried is not None and threads not in (None, carried.threads):
        raise UsageError(
            f"the costs are those of {carried.threads} threads, not {threads}", where="--threads", hint="leave it out"
        )
    return tune.Settings(
        goal=goal,
        effort=effort,
        costs=None if carried is None else carried.costs,
        threads=threads or (default_threads() if carried is None else carried.threads),
        **others,
    )


def divided(calibration: Sequence[Feed], seed: int, model: ir.Model) -> tuple[Sequence[Feed], Sequence[Feed]]:
    """Feeds to learn from, and others to check plans with. Raises IndivisibleError."""
    if len(calibration) < _EVERY:
        return feeds.split(calibration, seed, model.graph.inputs)
    rest = [feed for i, feed in enumerate(calibration) if i % _EVERY]
    return rest, calibration[::_EVERY]
