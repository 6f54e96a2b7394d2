"""The main job: optimise a model, prove what that did to it, and give it back where it does not pay."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from sparsify import data as feeds
from sparsify import modelio, resume, storage
from sparsify.api import facts, intake, searching
from sparsify.api.drift import budgets as budgets_of
from sparsify.api.samples import DataSource, Feed, Trial, read, trial
from sparsify.audit import DriftReport, audit, usermetrics
from sparsify.data import Reading
from sparsify.engines import called_in
from sparsify.errors import UsageError
from sparsify.modelio import Source
from sparsify.pipeline import DEFAULT_LEVEL, LEVEL_WITH_DATA, Pipeline, PipelineReport, levels, nodes, parse
from sparsify.pipeline.run import Progress, silence
from sparsify.rewrite import Pass

LATENCY_FEEDS = 4  # feeds that whole models are timed on; more would only average over the data's shapes


@dataclass(frozen=True)
class Result:
    """What came of an optimisation.

    Attributes:
        model: the optimised model; the input as it was when nothing was gained.
        changed: whether `model` is another than the input.
        accepted: whether it is inside every budget.
        reason: one sentence for people.
        report: what `--report FILE.json` writes.
        drift: of the held-out samples; None without data, and of an unchanged model without budgets.
    """

    model: ir.Model
    changed: bool
    accepted: bool
    reason: str
    report: dict[str, Any]
    drift: DriftReport | None

    @property
    def latency(self) -> dict[str, Any] | None:
        """Milliseconds of the input and of `model`, and the speedup; None when not measured."""
        measured: dict[str, Any] | None = self.report["latency"]
        return measured

    def save(self, path: str | Path) -> None:
        """Write the model. An unchanged one that came from a file is copied byte for byte.

        Raises:
            UsageError: `path` is the input, or cannot be written.
        """
        if self.changed:
            modelio.save(self.model, path)
        else:
            modelio.copy(self.model, path)


def optimize(
    model: Source,
    data: DataSource | None = None,
    budget: str | Sequence[str] = (),
    level: int | None = None,
    *,
    metrics: Sequence[str | usermetrics.Function] = (),
    passes: str | Sequence[Pass] | None = None,
    target: str = "portable",
    threads: int | None = None,
    rows: int | None = None,
    memory: int | None = None,
    seed: int = 0,
    effort: int = 1,
    reading: Reading | None = None,
    best_effort: bool = False,
    goal: str = "latency",
    costs: str | Path | None = None,
    dump_after: tuple[str, str | Path] | None = None,
    parallel: str | None = None,
    progress: Progress | None = None,
) -> Result:
    """Make `model` faster. With a budget and neither level nor passes, search for the fastest form that keeps it.

    Args:
        model: a path, bytes, an `onnx.ModelProto` or an `onnx_ir.Model`; never changed.
        data: what `--data` takes (`sparsify.data.sources`), a feed or a list of feeds. Half of the samples calibrate,
            the others judge; a single sample judges, and nothing is calibrated. Without data nothing is said of drift.
        budget: what the drift must keep to, such as "cosine>=0.99" or a `.toml` file of budgets; needs data.
        metrics: of your own, as `audit` takes them, which budgets may be about; needs data.
        level: 0 to 3; if not given the search with a budget, 3 with data alone, else 2.
        passes: a pipeline instead of a level.
        target: "portable" or "stock".
        threads: that the model will run on; one for each physical core if not given.
        rows: that linear layers will see; those seen in the data if not given.
        memory: MiB to keep while learning from data, more goes to disk; a quarter of the machine's if not given.
        seed: of everything random.
        effort: 0 to 3, of the search: how many sparsities and how many plans it tries.
        best_effort: where no plan keeps the budget, make the model that comes closest to it; not accepted all the same.
        goal: "latency" or "size": what a search makes little.
        costs: a file of measured costs (`sparsify doctor --profile`), of the machine that the model will run on. Given
            it, data and seed, the result is always the same, and is not held against latencies of this machine.
        reading: what `data` needs to be read, such as a tokenizer.
        dump_after: (pass name, folder) to write the model to as it is after that pass.
        parallel: "dask://HOST:PORT" or "ray://HOST:PORT": machines that calibration, sensitivities and pruning are
            spread over; needs data. The model is the same. See `sparsify.engines` for what they are trusted with.
        progress: called with (steps done, steps in all, what is under way).

    Raises:
        UsageError: options that make no sense.
        InputError: a model or data that cannot be used.
    """
    measures = tuple(usermetrics.load(given) for given in metrics)  # budgets may be about them
    budgets = budgets_of(budget)
    if budgets and data is None:
        raise UsageError("a budget can only be held against data", where="--budget", hint="give samples with --data")
    if measures and data is None:
        raise UsageError("a metric is measured on data", where="--metric", hint="give samples with --data")
    if parallel is not None and data is None:
        raise UsageError("only work with data is spread", where="--parallel", hint="give samples with --data")
    searches = bool(budgets) and passes is None and level is None
    if not searches and (goal != "latency" or costs is not None):
        raise UsageError(
            "a goal and costs are for a search", where="--goal, --costs", hint="give a budget, and no level or passes"
        )
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
    threads = settings.threads
    given: dict[str, Any] = {"has_data": data is not None, "threads": threads, "rows": rows, "memory": memory}
    _pipeline(passes, level, target, **given)  # what makes no sense is refused before anything is read
    base = intake.load(model, runs=data is not None)
    samples = None if data is None else read(data, base, reading)
    calibration, held_out, note = _divide(samples or [], seed, base)
    pipeline = _pipeline(passes, level, target, calibrated=bool(calibration), **given)
    with ThreadPoolExecutor(1) as aside:  # both read all of the model: of a large one the disk gives each part once
        known = aside.submit(facts.model, facts.named(model, base))
        sample, exact, answers = Trial(samples[0], exact=True) if samples else trial(base, seed)
        origin = known.result()

    searched = None
    candidate = modelio.load(base)
    # What one plan pruned, another need not prune again; and a search that was stopped goes on from there.
    with resume.kept(), called_in(parallel):
        if searches and calibration:
            searched = searching.search(base, calibration, budgets, settings, best_effort=best_effort)
        if searched is not None:
            pipeline, calibration = searched.pipeline, [*searched.learn]
            searched.mark(candidate)
        ran = pipeline.run(
            candidate,
            sample=sample,
            answers=answers,
            calibration=calibration,
            observe=exact and rows is None,
            dump_after=None if dump_after is None else (dump_after[0], Path(dump_after[1])),
            progress=progress,
        )
    table = nodes.rows(ran)
    changed, reason = _gain(pipeline, ran, table)
    if searched is not None:
        changed, reason = searched.verdict(changed, reason)
        searched.tell(table)
    latency = None
    if changed and storage.is_large(base.graph):
        reason += "; too large to be timed as a whole"
    elif changed and sample is not None:
        talk(0, 1, "time both models")
        timed = samples[:LATENCY_FEEDS] if samples else [sample]
        latency = facts.latency(base, candidate, timed, threads=threads, real=samples is not None)
        promised = _promises_speed(pipeline) if searched is None else goal == "latency" and costs is None
        if samples and latency["speedup"] <= 1 and promised:
            slow = f"the whole model would be no faster ({latency['speedup']:.2f}x)"
            changed, reason = False, slow if searched is None or searched.met else f"{reason}; {slow}"
            table = [{**row, "decision": nodes.LEFT, "reason": reason} for row in table]
    result = candidate if changed else base

    drift = None
    if held_out and (changed or budgets):
        drift = audit(
            base,
            result,
            held_out,
            budgets=budgets,
            measures=measures,
            seed=seed,
            threads=threads,
            progress=lambda what, done, total: talk(done, total, f"audit {what}"),
        )
        drift = replace(drift, notes=(*note, *drift.notes))
    if changed:
        facts.stamp(result, source=origin["sha256"], pipeline=str(pipeline), budgets=budgets, drift=drift)
    return _result(
        model=result,
        base=origin,
        changed=changed,
        reason=reason,
        refused=reason if searched is not None and not searched.met else "",
        drift=drift,
        settings={"pipeline": str(pipeline), "target": target, "threads": threads, "seed": seed},
        latency=latency,
        passes=[step.to_dict() for step in ran.steps],
        nodes=table,
        search=None if searched is None else searched.to_dict(latency),
    )


def _pipeline(
    passes: str | Sequence[Pass] | None,
    number: int | None,
    target: str,
    *,
    has_data: bool,
    calibrated: bool = False,
    **settings: int | None,
) -> Pipeline:
    if passes is not None and number is not None:
        raise UsageError("a level and a pipeline exclude each other", where="--passes", hint="leave one of them out")
    if passes is None:
        default = LEVEL_WITH_DATA if has_data else DEFAULT_LEVEL
        chosen = levels.level(default if number is None else number, target, calibrated=calibrated, **settings)
    else:
        levels.check_target(target)
        given = parse(passes) if isinstance(passes, str) else tuple(passes)
        chosen = levels.with_settings(given, **settings)
    return Pipeline(chosen)


def _divide(samples: list[Feed], seed: int, model: ir.Model) -> tuple[list[Feed], list[Feed], tuple[str, ...]]:
    """Samples to calibrate with, others to judge by, and what a reader must know of that.

    What cannot be divided judges, and calibrates nothing: numbers from data that was fitted to would be worthless.
    """
    if not samples:
        return [], [], ()
    try:
        return *feeds.split(samples, seed, model.graph.inputs), ()
    except feeds.IndivisibleError as error:
        return [], samples, (f"{error.what}: it judged, and nothing was calibrated",)


def _gain(pipeline: Pipeline, ran: PipelineReport, table: list[dict[str, Any]]) -> tuple[bool, str]:
    """Whether the result is worth keeping, and why or why not."""
    if nodes.gained(ran, table):
        layers = [row for row in table if row["shape"]]
        done = sum(row["decision"] != nodes.LEFT for row in layers)
        return True, f"{done} of {len(layers)} linear layers were changed"
    if all(one.name == "cleanup" for one in pipeline.passes):
        return ran.modified, "the graph was cleaned up" if ran.modified else "there was nothing to clean up"
    if not ran.modified or _promises_speed(pipeline):
        return False, nodes.refusal_reason(table)
    refined = sum(bool(row["refined"]) for row in table)
    return (
        True,
        f"{refined} linear layers were prepared, and none was changed" if refined else "the graph was cleaned up",
    )


def _promises_speed(pipeline: Pipeline) -> bool:
    """Whether a pass measures what it does; with `min_speedup=0` throughout, nobody asked for speed."""
    return any(getattr(one, "min_speedup", 0) > 0 for one in pipeline.passes)


def _result(
    *,
    model: ir.Model,
    base: dict[str, Any],
    changed: bool,
    reason: str,
    refused: str,
    drift: DriftReport | None,
    settings: dict[str, Any],
    **measured: Any,
) -> Result:
    """`refused`: why the budget cannot be met; empty to have `drift` decide."""
    accepted = not refused and (drift is None or bool(drift))
    candidate = facts.model(model) if changed else {**base, "path": None}
    latency = measured["latency"] if changed else None
    told = None if drift is None else facts.drift(drift)
    summary = f"refused: {refused}" if refused else facts.summary(changed, accepted, reason, latency, told)
    report = {
        "schema": facts.SCHEMA,
        "kind": "optimize",
        "title": "Sparsify: optimize",
        "summary": summary,
        "accepted": accepted,
        "changed": changed,
        "reason": reason,
        **facts.place(),
        "base": base,
        "candidate": candidate,
        **settings,
        "size": facts.sizes(base, candidate),
        **measured,
        "latency": latency,
        "drift": told,
    }
    return Result(model, changed, accepted, summary, facts.finite(report), drift)
