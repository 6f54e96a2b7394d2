"""The whole curve of speed or size over drift."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from sparsify import resume
from sparsify.api import facts, intake, searching
from sparsify.api.drift import budgets as budgets_of
from sparsify.api.optimizer import LATENCY_FEEDS
from sparsify.api.samples import DataSource, Feed, read
from sparsify.audit import audit, usermetrics
from sparsify.budget import Budget
from sparsify.data import split
from sparsify.engines import called_in
from sparsify.modelio import Source
from sparsify.pipeline.levels import check_target
from sparsify.pipeline.run import Progress, silence
from sparsify.tune import Problem, Settings, frontier, problem
from sparsify.tune.frontier import Point


def curve(
    model: Source,
    data: DataSource,
    budget: str | Sequence[str] = (),
    *,
    metrics: Sequence[str | usermetrics.Function] = (),
    goal: str = "latency",
    target: str = "portable",
    threads: int | None = None,
    rows: int | None = None,
    memory: int | None = None,
    seed: int = 0,
    effort: int = 1,
    costs: str | Path | None = None,
    parallel: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Predict cost over drift, from the model as it is to the cheapest form of every layer, and build some points.

    Arguments and errors as of `optimize`; half of the samples teach, the built points are judged by the other half, and
    held against `budget` where there is one. Nothing is chosen, so nothing is fitted to those that judge.

    Returns:
        The report, of kind `frontier`.
    """
    measures = tuple(usermetrics.load(given) for given in metrics)
    budgets = budgets_of(budget)
    check_target(target)
    talk = progress or silence
    settings = searching.settings_of(
        goal=goal,
        effort=effort,
        costs=costs,
        threads=threads,
        target=target,
        rows=rows,
        memory=memory,
        seed=seed,
        progress=talk,
        measures=measures,
    )
    base = intake.load(model)
    samples = read(data, base)
    learn, judges = split(samples, seed, base.graph.inputs)
    with resume.kept(), called_in(parallel):
        found = problem(base, learn, settings)
        swept = frontier.points(found)
        chosen = frontier.to_build(swept, settings)
        built = [
            _built(base, point, learn, judges, budgets, settings, (number, len(chosen)))
            for number, point in enumerate(chosen)
        ]
    unit = "bytes" if goal == "size" else "ms"
    return {
        "schema": facts.SCHEMA,
        "kind": "frontier",
        "title": f"Sparsify: {'size' if goal == 'size' else 'latency'} over drift",
        "summary": _summary(found, swept, built, unit),
        "accepted": True,
        **facts.place(),
        "base": facts.model(facts.named(model, base)),
        "data": facts.data(samples, data),
        "goal": goal,
        "unit": unit,
        "target": target,
        "threads": settings.threads,
        "seed": seed,
        "points": [_told(point, found, unit) for point in swept],
        "built": facts.finite([{**_told(p, found, unit), **more} for p, more in zip(chosen, built, strict=True)]),
    }


def _told(point: Point, found: Problem, unit: str) -> dict[str, Any]:
    left = sum(found.left)
    return {
        unit: point.cost,
        "ratio": left / point.cost if point.cost else None,
        "drift": point.drift,
        "plan": {name: str(choice) for name, choice in point.plan.items()},
    }


def _built(
    base: ir.Model,
    point: Point,
    learn: Sequence[Feed],
    judges: Sequence[Feed],
    budgets: Sequence[Budget],
    settings: Settings,
    place: tuple[int, int],
) -> dict[str, Any]:
    """Drift, latency and size of the model of a plan, measured as a whole."""
    settings.progress(*place, f"build and audit point {place[0] + 1}")
    candidate = frontier.built(base, point, learn, settings)
    drift = audit(
        base,
        candidate,
        judges,
        budgets=budgets,
        measures=settings.measures,
        seed=settings.seed,
        threads=settings.threads,
    )
    latency = facts.latency(base, candidate, judges[:LATENCY_FEEDS], threads=settings.threads, real=True)
    sizes = facts.sizes(facts.model(base), facts.model(candidate))
    return {"outputs": facts.drift(drift), "latency": latency, "size": sizes}


def _summary(found: Problem, swept: Sequence[Point], built: Sequence[dict[str, Any]], unit: str) -> str:
    if len(swept) < 2:
        return f"no form of any layer is {'smaller' if unit == 'bytes' else 'faster here'}: the curve is one point"
    best = sum(found.left) / swept[-1].cost
    layers = f"the linear layers become up to {best:.2f} times {'smaller' if unit == 'bytes' else 'as fast'}"
    return f"{len(swept)} points, {len(built)} of them built and audited; {layers}"
