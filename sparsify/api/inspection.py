"""What could be done with a model, on this machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from sparsify import coo, graph, modelio, ops, runtime
from sparsify.api import facts, intake, sensitivities
from sparsify.api.samples import DataSource, Trial, read, trial
from sparsify.data import Reading
from sparsify.engines import called_in
from sparsify.errors import InputError, UsageError
from sparsify.machine import threads as default_threads
from sparsify.modelio import Source
from sparsify.pipeline import PassError, Pipeline, levels, nodes, parse
from sparsify.pipeline.run import Progress

TRIED = {"o2": 2, "o3": 3}  # levels whose gain is measured


def inspect(
    model: Source,
    data: DataSource | None = None,
    *,
    sensitivity: bool = False,
    memory: int | None = None,
    threads: int | None = None,
    rows: int | None = None,
    reading: Reading | None = None,
    parallel: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What in `model` is prunable, what already is sparse, and what -O2 and -O3 would gain, measured layer by layer.

    Args:
        model: as in `optimize`; never changed.
        data: as in `optimize`; only `sensitivity` looks at it.
        sensitivity: also prune each layer alone and measure how far the whole model drifts.
        memory: MiB that `sensitivity` may keep; a quarter of the machine's if not given.
        threads: that the model will run on; one for each physical core if not given.
        rows: that linear layers will see; those of the model's own shapes, or a usual number, if not given.
        reading: as in `optimize`.
        parallel: as in `optimize`; only `sensitivity` is spread.
        progress: called with (steps done, steps in all, what is under way).

    Raises:
        UsageError: `sensitivity` without data, `parallel` without `sensitivity`, or machines that cannot be had.
        InputError: a model or data that cannot be used.
    """
    if sensitivity and data is None:
        raise UsageError("drift can only be measured on data", where="--sensitivity", hint="give samples with --data")
    if parallel is not None and not sensitivity:
        raise UsageError("only sensitivities are spread", where="--parallel", hint="add --sensitivity")
    threads = threads or default_threads()
    base = intake.load(model, runs=sensitivity)
    samples = read(data, base, reading) if sensitivity and data is not None else []
    made_up = Trial() if rows is not None else _sample(base)
    tried = {name: _try(base, number, made_up, threads, rows, progress) for name, number in TRIED.items()}
    table = [_row(name, {level: found.get(name) for level, found in tried.items()}) for name in tried["o2"]]
    linear = _linear(base)
    layers = {layer.name: layer for layer in linear}
    for row in table:
        layer = layers.get(row["name"])
        # Of the model as it came: passes may have taken whole rows and columns away.
        row["zeros"] = None if layer is None else float(np.mean(layer.matrix() == 0))
        row["shape"] = row["shape"] if layer is None else list(layer.shape)
    report: dict[str, Any] = {
        "schema": facts.SCHEMA,
        "kind": "inspect",
        "title": "Sparsify: inspect",
        "summary": _summary(table),
        "accepted": True,
        **facts.place(),
        "threads": threads,
        "model": _facts(base, model, linear),
        "nodes": table,
    }
    if samples:
        with called_in(parallel):
            found = sensitivities.measure(base, samples, memory=memory, threads=threads, progress=progress)
        report["sensitivity"] = found
    return dict(facts.finite(report))


def _sample(base: ir.Model) -> Trial:
    """A made-up feed that shows how many rows each layer sees; nothing where shapes are not all known."""
    try:
        found = trial(base, seed=0)
    except InputError:
        return Trial()
    return found if found.exact else Trial()


def _try(
    base: ir.Model, number: int, made_up: Trial, threads: int, rows: int | None, progress: Progress | None
) -> dict[str, dict[str, Any]]:
    """What -O`number` would do to each node, by its name."""
    model = modelio.load(base)
    pipeline = Pipeline(levels.level(number, threads=threads, rows=rows))
    try:
        ran = pipeline.run(model, sample=made_up.feed, answers=made_up.answers, progress=progress)
    except PassError:
        if coo.too_large_to_run(base) is None:
            runtime.session(base)  # what no runtime takes may break a pass: then the model is at fault
        raise
    return {row["name"]: row for row in nodes.rows(ran)}


def _row(name: str, found: dict[str, dict[str, Any] | None]) -> dict[str, Any]:
    """One node: how fast it is, and how many times faster each level makes it."""
    known = [row for row in found.values() if row is not None]
    speedups = {f"speedup_{level}": None if row is None else _speedup(row) for level, row in found.items()}
    notes = dict.fromkeys(row["reason"] for row in known if row["decision"] == nodes.LEFT and row["reason"])
    return {
        "name": name,
        "shape": next((row["shape"] for row in known if row["shape"]), None),
        "rows": next((row["rows"] for row in known if row["rows"]), None),
        "pattern": next((row["pattern"] for row in known if row["pattern"]), None),
        "dense_ms": next((row["dense_ms"] for row in known if row["dense_ms"]), None),
        **speedups,
        "note": "; ".join(notes),
    }


def _speedup(row: dict[str, Any]) -> float | None:
    if row["decision"] == nodes.LEFT or row["dense_ms"] is None or not row["rewritten_ms"]:
        return None
    return float(row["dense_ms"] / row["rewritten_ms"])


def _linear(base: ir.Model) -> list[graph.Linear]:
    """The linear layers that levels see, convolutions of 1x1 and transposed ones among them."""
    model = modelio.load(base)
    Pipeline(parse("cleanup,conv-matmul")).run(model)
    return graph.linear_layers(model)


def _facts(base: ir.Model, source: Source, layers: list[graph.Linear]) -> dict[str, Any]:
    weights = {id(layer.tensor): layer.tensor.size for layer in layers}
    total = sum(v.const_value.size for g in base.graphs() for v in g.initializers.values() if v.const_value is not None)
    return {
        **facts.model(facts.named(source, base)),
        "nodes": sum(1 for _ in ops.model_nodes(base)),
        "linear": len(layers),
        "sparse": sum(1 for node in ops.model_nodes(base) if ops.operator_of(node) is not None),
        "linear_share": sum(weights.values()) / total if total else None,
        "opset": base.opset_imports.get(""),
    }


def _summary(table: list[dict[str, Any]]) -> str:
    table = [row for row in table if row["shape"]]
    if not table:
        return "nothing to gain: the model has no linear layer with a constant weight"
    gains = {level: sum((row[f"speedup_{level}"] or 0) > 1 for row in table) for level in TRIED}
    return f"of {len(table)} linear layers, -O2 makes {gains['o2']} faster and -O3 makes {gains['o3']} faster"
