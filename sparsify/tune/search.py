"""The fastest or smallest model inside a drift budget: costs and drifts are measured, and the whole is checked.

1. What each layer may become, and at what cost and drift, is measured (`options`).
2. With drifts taken to add up, the cheapest plan whose drifts sum to at most D is found (`knapsack`).
3. Drifts do not quite add up, and budgets are about other figures: so the plan is built and audited on samples that
   took part in nothing before, and D is corrected by the share of the budget that was used, in a closing bracket.

What is returned is the cheapest plan whose build kept the budget on these samples; where times say next to nothing
between two, the one that drifts less. Whoever calls judges the final model on yet others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from sparsify.budget import Budget
from sparsify.data import Feed
from sparsify.tune.options import Problem, Settings, problem
from sparsify.tune.plan import Plan
from sparsify.tune.trials import Hunt, Trial
from sparsify.tune.whole import saved_share

_TRIALS = (2, 3, 5, 8)  # models that are built and audited, by effort
_ALIKE = 0.01  # share of what is saved: times of layers repeat to a few per cent, so less cannot be told apart


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        plan: of the best trial that passed; empty where none did, or nothing pays.
        trials: in order.
        problem: what the search chose from.
        share: of the whole model's time, which goes with each millisecond that layers save by their own times; None
            where that was not measured here.
    """

    plan: Plan
    trials: tuple[Trial, ...]
    problem: Problem
    share: float | None = None


def search(
    model: ir.Model, learn: Sequence[Feed], check: Sequence[Feed], budgets: Sequence[Budget], settings: Settings
) -> Found:
    """Choose a form for every linear layer of the main graph.

    Args:
        model: as it came; left as it is.
        learn: feeds that times, drifts and pruning are taken from.
        check: others, that plans are audited on.
        budgets: what a plan must keep to; at least one.
        settings: all else.

    Raises:
        InputError: a file of costs lacks a class of layers.
    """
    found = problem(model, learn, settings)
    trials = Hunt(model, found, learn, check, budgets, settings).trials(_TRIALS[settings.effort])
    best = choose(trials, settings.goal)
    if best is None:
        return Found({}, trials, found)
    return Found(best.plan, trials, found, saved_share(model, found, learn, settings))


def choose(trials: Sequence[Trial], goal: str) -> Trial | None:
    """The trial that saves most inside every budget; of those whose times are as good as the same, who drifts least."""
    kept = [trial for trial in trials if trial.passed]
    least = max((trial.saved for trial in kept), default=0.0) * (1 - _ALIKE * (goal == "latency"))
    return min((trial for trial in kept if trial.saved >= least), key=lambda t: (t.usage, -t.saved), default=None)
