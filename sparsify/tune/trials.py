"""Plans that are built and audited, each a better guess at the one that uses a budget up.

With D the limit of the summed drifts (`knapsack`): a plan that broke the budget bounds D from above by its own sum, one
that kept it bounds D from below. Between the two the next D is where the budget would be used up if usage grew with the
power of the sum that the last two plans tell, and the geometric middle where that lies outside. Where budgets do not
say which D to start from, the first plan is the fastest that prunes nothing: it is soon built. Where they do, D never
goes far beyond it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from sparsify.audit import audit
from sparsify.budget import Budget
from sparsify.data import Feed
from sparsify.tune import knapsack
from sparsify.tune.knapsack import Option
from sparsify.tune.options import Problem, Settings
from sparsify.tune.plan import Plan, build
from sparsify.tune.usage import start, usage

_ENOUGH = 0.85  # share of the budget from which on another trial gains next to nothing
_AIM = 0.95  # share of it to aim at: predictions scatter, and what breaks the budget is worth nothing
_RESCUES = 4  # trials beyond, while none kept the budget: "it cannot be met" must not be said after the first few
_SEQUELS = 2  # trials beyond, while the best plan leaves much of the budget
_MUCH_LEFT = 0.6  # share of it: used less than this
_START = 0.05  # of a summed drift, where nothing says what a budget allows and all that pays is pruned
# Times the drift that budgets stand for. Drifts were measured on samples, too: where these say more than that, samples
# of a check that say otherwise are too much alike: Magika's, at 30 times, had a cosine of 1, and held-out ones of .96.
_TRUSTED = 2.0
_POWERS = (0.25, 2.0)  # a metric that is the root of another's root, or its square; two plans alone may tell nonsense
_GUESSES = 20  # limits that are tried for a plan that was not tried yet; they cost no build


@dataclass(frozen=True)
class Trial:
    """A plan that was built and audited.

    Attributes:
        limit: D, of the summed drifts.
        plan: by layer.
        saved: milliseconds or bytes of all layers together, as predicted.
        usage: the most that any budget was used, 1 is all of it; inf where an output is no longer finite.
        passed: inside every budget.
        what: one sentence a verdict.
        stepped_down: layers that run slower than in the last plan that broke the budget.
    """

    limit: float
    plan: Plan
    saved: float
    usage: float
    passed: bool
    what: tuple[str, ...]
    stepped_down: tuple[str, ...]

    def to_dict(self, unit: str) -> dict[str, Any]:
        """As JSON carries it; the plan as text. `unit` is `ms` or `bytes`."""
        return {
            "limit": self.limit,
            f"saved_{unit}": self.saved,
            "usage": self.usage,
            "passed": self.passed,
            "verdicts": list(self.what),
            "stepped_down": list(self.stepped_down),
            "plan": {name: str(choice) for name, choice in self.plan.items()},
        }


@dataclass(frozen=True)
class Hunt:
    """All that a trial needs; attributes as the arguments of `search`, and what there is to choose."""

    model: ir.Model
    problem: Problem
    learn: Sequence[Feed]
    check: Sequence[Feed]
    budgets: Sequence[Budget]
    settings: Settings

    def trials(self, count: int) -> tuple[Trial, ...]:
        """At most `count` of them, in order, and a few more while none kept the budget; none where no form pays.

        The last that is tried then is the single option that drifts least.
        """
        done: list[Trial] = []
        seen: list[tuple[float, float]] = []  # summed drifts and usage
        low, high = 0.0, math.inf
        told = start(self.budgets)
        most = sum(max(o.drift for o in of_layer) for of_layer in self.problem.options)
        most = most if told is None else min(most, _TRUSTED * told)
        least = min((o.drift for of_layer in self.problem.options for o in of_layer[1:]), default=0.0)
        best = self._best()
        limit, taken = self._first(told, least, most)
        for _ in range((count + _RESCUES) * _GUESSES):
            known = next((t for t in done if t.plan == self.problem.plan(taken)), None)
            spent = sum(option.drift for option in taken)
            if known is None:
                enough = count + self._more([t.usage for t in done if t.passed])
                if len(done) >= enough or not any(o.choice.format for o in taken):
                    break
                self.settings.progress(len(done), count, f"try a plan, {len(done) + 1} of {count}")
                known = self._try(limit, taken, done, best)
                done.append(known)
                seen.append((spent, known.usage))
            if not known.passed:
                if limit <= least:
                    break
                high = min(high, spent)
            elif known.usage >= _ENOUGH or limit >= most:
                break
            else:
                low = max(low, limit)
            limit = max(min(_next(spent, known.usage, low, high, _power(seen)), most), least)
            taken = knapsack.solve(self.problem.options, limit)
        return tuple(done)

    def _more(self, used: Sequence[float]) -> int:
        """Trials beyond those asked for, by what plans that kept the budget used of it.

        What somebody's own metric leaves of a budget is better left: the next samples may say otherwise.
        """
        if not used:
            return _RESCUES
        return _SEQUELS if max(used) < _MUCH_LEFT and not self.settings.measures else 0

    def _first(self, told: float | None, least: float, most: float) -> tuple[float, list[Option]]:
        """D to start from, what budgets told if they did, and the options to take."""
        if told is None:
            taken = self.problem.fastest_unpruned()
            if any(o.choice.format for o in taken):
                return sum(o.drift for o in taken), taken
        limit = max(min(_START if told is None else told, most), least)
        return limit, knapsack.solve(self.problem.options, limit)

    def _best(self) -> dict[str, float]:
        """What metrics of somebody's own are where nothing has drifted."""
        if not self.settings.measures:
            return {}
        found = audit(self.model, self.model, self.check, measures=self.settings.measures, threads=1)
        return {} if found.whole is None else {name: e.value for name, e in found.whole.metrics.items()}

    def _try(self, limit: float, taken: Sequence[Option], done: Sequence[Trial], best: Mapping[str, float]) -> Trial:
        plan = self.problem.plan(taken)
        candidate = self.model.clone()
        build(candidate, self.settings.pipeline, plan, self.learn)
        found = audit(
            self.model,
            candidate,
            self.check,
            budgets=self.budgets,
            measures=self.settings.measures,
            seed=self.settings.seed,
            threads=self.settings.threads,
        )
        return Trial(
            limit,
            plan,
            saved=self.problem.saved(taken),
            usage=usage(found, self.budgets, best),
            passed=bool(found),
            what=tuple(v.what for v in found.verdicts),
            stepped_down=self._stepped_down(taken, done),
        )

    def _stepped_down(self, taken: Sequence[Option], done: Sequence[Trial]) -> tuple[str, ...]:
        """Layers that become slower than in the last trial that broke the budget."""
        broken = next((trial for trial in reversed(done) if not trial.passed), None)
        if broken is None:
            return ()
        before = (
            next(o.cost for o in of_layer if o.choice == broken.plan[name])
            for name, of_layer in zip(self.problem.names, self.problem.options, strict=True)
        )
        return tuple(
            name for name, option, cost in zip(self.problem.names, taken, before, strict=True) if option.cost > cost
        )


def _power(seen: Sequence[tuple[float, float]]) -> float:
    """p, where usage grew as summed drifts to the p between the last two plans; 1 where they do not tell.

    Of two plans the one that drifts more may use less of a budget: metrics on a few samples are no smooth functions.
    """
    usable = [(spent, used) for spent, used in seen if spent > 0 and 0 < used < math.inf]
    if len(usable) < 2 or usable[-1][0] == usable[-2][0]:
        return 1.0
    (spent, used), (before, used_before) = usable[-1], usable[-2]
    power = math.log(used / used_before) / math.log(spent / before)
    return min(max(power, _POWERS[0]), _POWERS[1]) if power > 0 else 1.0


def _next(spent: float, used: float, low: float, high: float, power: float = 1.0) -> float:
    """The next D, inside the bracket."""
    aim = spent * (_AIM / used) ** (1 / power) if 0 < used < math.inf else spent * (0.25 if used else 4.0)
    if low < aim < high:
        return aim
    if high == math.inf:
        return max(aim, low * 2)
    return math.sqrt(low * high) if low > 0 else high / 4
