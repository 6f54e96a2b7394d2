"""The fastest model inside a drift budget: times and drifts are measured, and the whole is checked.

1. Every form of every layer is timed (`candidates`).
2. How far the whole model drifts when one layer alone is pruned is measured (`sparsify.sensitivity`); what int8 alone
   adds is measured for all layers together and shared out evenly: it is small beside pruning.
3. With drifts taken to add up, the fastest plan whose drifts sum to at most D is found (`knapsack`).
4. Drifts do not quite add up, and budgets are about other figures: so the plan is built and audited on samples that
   took part in nothing before, and D is corrected by the share of the budget that was used, in a closing bracket.

What is returned is the fastest plan whose build kept the budget on these samples. Whoever calls judges the final model
on yet others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from sparsify import graph, sensitivity
from sparsify.audit import DriftReport, audit
from sparsify.budget import Budget
from sparsify.data import Feed
from sparsify.graph import Linear
from sparsify.machine import machine
from sparsify.pipeline import Pipeline, parse
from sparsify.pipeline.run import Progress, observe_rows, silence
from sparsify.rewrite import Choice
from sparsify.tune import candidates, knapsack
from sparsify.tune.knapsack import Option
from sparsify.tune.plan import PREPARE, Plan, build, pipeline
from sparsify.tune.usage import start, usage

_TRIALS = (2, 3, 5, 8)  # models that are built and audited, by effort
_ENOUGH = 0.85  # share of the budget from which on another trial gains next to nothing
_MARGIN = 1.05  # times faster than the layer as it is, or not worth a drift; measurements repeat to a few per cent
_FALLBACK_MEMORY = 2**33  # bytes, where the system does not tell


@dataclass(frozen=True)
class Trial:
    """A plan that was built and audited.

    Attributes:
        limit: D, of the summed drifts.
        plan: by layer.
        saved_ms: of all layers together, as predicted.
        usage: the most that any budget was used, 1 is all of it; inf where an output is no longer finite.
        passed: inside every budget.
        what: one sentence a verdict.
        stepped_down: layers that run slower than in the last plan that broke the budget.
    """

    limit: float
    plan: Plan
    saved_ms: float
    usage: float
    passed: bool
    what: tuple[str, ...]
    stepped_down: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON carries it; the plan as text."""
        return {
            "limit": self.limit,
            "saved_ms": self.saved_ms,
            "usage": self.usage,
            "passed": self.passed,
            "verdicts": list(self.what),
            "stepped_down": list(self.stepped_down),
            "plan": {name: str(choice) for name, choice in self.plan.items()},
        }


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        plan: of the best trial that passed; empty where none did, or nothing pays.
        trials: in order.
        options: of each layer, by name, the first of which leaves it; what the search chose from.
        dense_ms: of each layer, as it is.
    """

    plan: Plan
    trials: tuple[Trial, ...]
    options: dict[str, tuple[Option, ...]]
    dense_ms: dict[str, float] = field(default_factory=dict)


def search(
    model: ir.Model,
    learn: Sequence[Feed],
    check: Sequence[Feed],
    budgets: Sequence[Budget],
    *,
    target: str,
    threads: int,
    rows: int | None = None,
    effort: int = 1,
    seed: int = 0,
    progress: Progress = silence,
) -> Found:
    """Choose a form for every linear layer of the main graph.

    Args:
        model: as it came; left as it is.
        learn: feeds that times, drifts and pruning are taken from.
        check: others, that plans are audited on.
        budgets: what a plan must keep to; at least one.
        target: `portable` or `stock`.
        threads: that the model will run on.
        rows: that layers will see; those in `learn` if not given.
        effort: 0 to 3: how many sparsities and how many plans are tried.
        seed: of the audits' bootstrap.
        progress: told what is under way.
    """
    prepared = model.clone()
    Pipeline(parse(PREPARE)).run(prepared, sample=learn[0], progress=progress)
    if rows is None:
        observe_rows(prepared, learn[0])
    layers = [x for x in graph.linear_layers(prepared) if x.node.graph is prepared.graph]
    if not layers:
        return Found({}, (), {})
    options, dense = _options(prepared, layers, learn, target, threads, rows, effort, progress)
    trials = _trials(model, prepared, layers, options, learn, check, budgets, target, threads, effort, seed, progress)
    passed = [trial for trial in trials if trial.passed]
    best = max(passed, key=lambda t: t.saved_ms, default=None)
    names = [layer.name for layer in layers]
    return Found(
        {} if best is None else best.plan,
        tuple(trials),
        dict(zip(names, map(tuple, options), strict=True)),
        dict(zip(names, dense, strict=True)),
    )


def _options(
    prepared: ir.Model,
    layers: Sequence[Linear],
    learn: Sequence[Feed],
    target: str,
    threads: int,
    rows: int | None,
    effort: int,
    progress: Progress,
) -> tuple[list[list[Option]], list[float]]:
    """What each layer may become and costs, and its time as it is."""
    tried = candidates.choices(target, effort)
    kinds = candidates.kinds(prepared, layers, rows)
    times = candidates.measure(layers, kinds, tried, threads=threads, progress=progress)
    goals = [(p, p.sparsity or 0.0) for p in candidates.patterns(effort)] if target != "stock" else []
    curves = _curves(prepared, layers, learn, goals, progress)
    names = [layer.name for layer in layers]
    formats = dict.fromkeys(choice.format for choice in tried if choice.format != candidates.EXACT)
    rounding = {f: _rounding(prepared, names, f, learn, threads) for f in formats}
    found, dense = [], []
    for layer, kind in zip(layers, kinds, strict=True):
        of_layer = [Option(Choice(), times[kind].dense_ms, 0.0)]
        for choice, ms in times[kind].by_choice.items():
            pruning = 0.0 if choice.pattern is None else curves.get(layer.name, {}).get(choice.pattern.sparsity)
            if pruning is None or ms * _MARGIN > times[kind].dense_ms:
                continue
            of_layer.append(Option(choice, ms, pruning + rounding.get(choice.format, 0.0)))
        found.append(of_layer)
        dense.append(times[kind].dense_ms)
    return found, dense


def _curves(
    prepared: ir.Model,
    layers: Sequence[Linear],
    learn: Sequence[Feed],
    goals: Sequence[sensitivity.Goal],
    progress: Progress,
) -> dict[str, dict[float | None, float]]:
    """Drift by layer and sparsity; layers whose weights must not be changed are not in it."""
    if not goals:
        return {}
    memory = (machine().memory or _FALLBACK_MEMORY) // 4
    measured = sensitivity.measure(prepared, layers, learn, goals, memory=memory, progress=progress)
    # Layers that share a weight share its drift.
    return {
        name: dict(zip(one.curve.sparsities, one.curve.drifts, strict=True)) for one in measured for name in one.names
    }


def _rounding(prepared: ir.Model, names: Sequence[str], format_: str, learn: Sequence[Feed], threads: int) -> float:
    """What one layer in this format adds to the drift: an even share of what all of them do."""
    rounded = prepared.clone()
    target = "stock" if format_ == "stock-int8" else "portable"
    build(rounded, pipeline(target), dict.fromkeys(names, Choice(format_)), [])
    return _energy(audit(prepared, rounded, learn[: sensitivity.PROBES], threads=threads)) / len(names)


def _energy(found: DriftReport) -> float:
    """||y' - y||^2 / ||y||^2, the mean over the float outputs."""
    shares = [o.metrics["relative_l2"].value ** 2 for o in found.outputs.values() if "relative_l2" in o.metrics]
    return sum(shares) / len(shares) if shares else 0.0


def _trials(
    model: ir.Model,
    prepared: ir.Model,
    layers: Sequence[Linear],
    options: Sequence[Sequence[Option]],
    learn: Sequence[Feed],
    check: Sequence[Feed],
    budgets: Sequence[Budget],
    target: str,
    threads: int,
    effort: int,
    seed: int,
    progress: Progress,
) -> list[Trial]:
    """Plans, each built and audited, towards the one that uses the budget up."""
    done: list[Trial] = []
    limit, low, high = start(budgets), 0.0, math.inf
    most = sum(max(o.drift for o in of_layer) for of_layer in options)
    for number in range(_TRIALS[effort]):
        limit = min(limit, most)
        taken = knapsack.solve(options, limit)
        plan = {layer.name: option.choice for layer, option in zip(layers, taken, strict=True)}
        if any(trial.plan == plan for trial in done) or not any(c.format for c in plan.values()):
            break
        progress(number, _TRIALS[effort], f"try a plan, {number + 1} of at most {_TRIALS[effort]}")
        candidate = model.clone()
        build(candidate, pipeline(target), plan, learn)
        found = audit(model, candidate, check, budgets=budgets, seed=seed, threads=threads)
        used = usage(found, budgets)
        saved = sum(of_layer[0].cost - option.cost for of_layer, option in zip(options, taken, strict=True))
        down = _stepped_down(done, plan, dict(zip((x.name for x in layers), taken, strict=True)), options, layers)
        what = tuple(v.what for v in found.verdicts)
        done.append(Trial(limit, plan, saved, used, bool(found), what, down))
        if bool(found):
            low = max(low, limit)
            if used >= _ENOUGH or limit >= most:
                break
        else:
            high = min(high, limit)
        limit = _next(limit, used, low, high)
    return done


def _next(limit: float, used: float, low: float, high: float) -> float:
    """Another D: where the budget would be used up if usage grew with D, kept inside the bracket."""
    aim = limit * 0.95 / used if 0 < used < math.inf else limit * (0.25 if used else 4.0)
    if aim >= high or aim <= low:
        return math.sqrt(low * high) if low > 0 else high / 4
    return aim


def _stepped_down(
    done: Sequence[Trial],
    plan: Plan,
    taken: dict[str, Option],
    options: Sequence[Sequence[Option]],
    layers: Sequence[Linear],
) -> tuple[str, ...]:
    """Layers that became slower than in the last trial that broke the budget."""
    broken = next((trial for trial in reversed(done) if not trial.passed), None)
    if broken is None:
        return ()
    costs = {x.name: {o.choice: o.cost for o in of_layer} for x, of_layer in zip(layers, options, strict=True)}
    return tuple(name for name in plan if taken[name].cost > costs[name][broken.plan[name]])
