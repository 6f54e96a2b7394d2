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

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from sparsify import graph, sensitivity
from sparsify.audit import DriftReport, audit
from sparsify.budget import Budget
from sparsify.data import Feed
from sparsify.graph import Linear
from sparsify.machine import learning_memory
from sparsify.pipeline import Pipeline, parse
from sparsify.pipeline.run import Progress, observe_rows, silence
from sparsify.rewrite import Choice
from sparsify.solvers.allocate import Curve
from sparsify.tune import candidates
from sparsify.tune.knapsack import Option
from sparsify.tune.plan import EXACT, PREPARE, Plan, build, pipeline
from sparsify.tune.trials import Hunt, Trial

_TRIALS = (2, 3, 5, 8)  # models that are built and audited, by effort
_MARGIN = 1.05  # times faster than the layer as it is, or not worth a drift; measurements repeat to a few per cent


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
    memory: int | None = None,
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
        memory: MiB to keep while learning from data; a quarter of the machine's if not given.
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
    options, dense = _options(prepared, layers, learn, target, threads, rows, memory, effort, progress)
    names = [layer.name for layer in layers]
    hunt = Hunt(model, names, options, learn, check, budgets, pipeline(target, memory), threads, seed, progress)
    trials = hunt.trials(_TRIALS[effort])
    passed = [trial for trial in trials if trial.passed]
    best = max(passed, key=lambda t: t.saved_ms, default=None)
    return Found(
        {} if best is None else best.plan,
        trials,
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
    memory: int | None,
    effort: int,
    progress: Progress,
) -> tuple[list[list[Option]], list[float]]:
    """What each layer may become and costs, and its time as it is."""
    tried = candidates.choices(target, effort)
    kinds = candidates.kinds(prepared, layers, rows)
    times = candidates.measure(layers, kinds, tried, threads=threads, progress=progress)
    goals = [(p, p.sparsity or 0.0) for p in candidates.probed(effort)] if target != "stock" else []
    curves = _curves(prepared, layers, learn, goals, learning_memory(memory), progress)
    names = [layer.name for layer in layers]
    formats = dict.fromkeys(choice.format for choice in tried if choice.format != EXACT)
    rounding = {f: _rounding(prepared, names, f, learn, threads) for f in formats}
    found, dense = [], []
    for layer, kind in zip(layers, kinds, strict=True):
        of_layer = [Option(Choice(), times[kind].dense_ms, 0.0)]
        for choice, ms in times[kind].by_choice.items():
            curve = curves.get(layer.name)
            if ms * _MARGIN > times[kind].dense_ms or (choice.pattern is not None and curve is None):
                continue
            sparsity = None if choice.pattern is None else choice.pattern.sparsity
            pruning = 0.0 if sparsity is None or curve is None else curve.at(sparsity)
            of_layer.append(Option(choice, ms, pruning + rounding.get(choice.format, 0.0)))
        found.append(of_layer)
        dense.append(times[kind].dense_ms)
    return found, dense


def _curves(
    prepared: ir.Model,
    layers: Sequence[Linear],
    learn: Sequence[Feed],
    goals: Sequence[sensitivity.Goal],
    memory: int,
    progress: Progress,
) -> dict[str, Curve]:
    """Drift over sparsity, by layer; layers whose weights must not be changed are not in it."""
    if not goals:
        return {}
    # Layers that share a weight share its drift.
    measured = sensitivity.measure(prepared, layers, learn, goals, memory=memory, progress=progress)
    return {name: one.curve for one in measured for name in one.names}


def _rounding(prepared: ir.Model, names: Sequence[str], format_: str, learn: Sequence[Feed], threads: int) -> float:
    """What one layer in this format adds to the drift: an even share of what all of them do."""
    rounded = prepared.clone()
    build(rounded, pipeline("portable"), dict.fromkeys(names, Choice(format_)), [])
    return _energy(audit(prepared, rounded, learn[: sensitivity.PROBES], threads=threads)) / len(names)


def _energy(found: DriftReport) -> float:
    """||y' - y||^2 / ||y||^2, the mean over the float outputs."""
    shares = [o.metrics["relative_l2"].value ** 2 for o in found.outputs.values() if "relative_l2" in o.metrics]
    return sum(shares) / len(shares) if shares else 0.0
