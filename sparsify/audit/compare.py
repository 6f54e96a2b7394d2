"""Running base and candidate on the same data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sparsify import budget as budgets_
from sparsify import data, runtime
from sparsify.audit import kinds as kinds_
from sparsify.audit import metrics, worst
from sparsify.audit.attribution import MEMORY, THRESHOLD, drift_of_layers
from sparsify.audit.judging import check_outputs, judge
from sparsify.audit.labels import Labels
from sparsify.audit.output import Output
from sparsify.audit.report import DriftReport, OutputDrift, Whole
from sparsify.audit.truth import Answers, Truth
from sparsify.audit.usermetrics import UserMetric, UserTally
from sparsify.budget import Budget
from sparsify.data import Feed
from sparsify.errors import InputError, UsageError
from sparsify.runtime import Session, Source

Progress = Callable[[str, int, int], None]


def audit(
    base: Source,
    candidate: Source,
    feeds: Sequence[Feed],
    *,
    budgets: Iterable[Budget | str] = (),
    kinds: Mapping[str, str] | None = None,
    labels: Labels | None = None,
    measures: Sequence[UserMetric] = (),
    layers: bool = False,
    memory: int = MEMORY,
    threshold: float = THRESHOLD,
    seed: int = 0,
    threads: int | None = 1,
    native: bool = True,
    sides: tuple[str, str] = ("base", "candidate"),
    save_worst: Path | None = None,
    progress: Progress | None = None,
) -> DriftReport:
    """Measure how far `candidate` has drifted from `base` on `feeds`, and judge it.

    Metrics, samples and intervals are defined in `sparsify.audit.metrics` and `sparsify.data`. An output
    whose leading dimension is not that of the batch gives one sample a feed.

    Args:
        base, candidate: models in any form, with the same inputs and outputs; left as they are.
        feeds: data that took no part in making the candidate.
        budgets: what is allowed; without any, only new or lost NaNs and infinities fail.
        kinds: what outputs are, by name, where `sparsify.audit.kinds` would decide otherwise.
        labels: what is right, to see which of the two models is nearer to it.
        measures: metrics that somebody brings.
        layers: also where the drift arises, a row a node; takes several runs over the data.
        memory: bytes that intermediate values may take for that; the models' weights come on top.
        threshold: of drift, to name the first layer over it.
        seed: of the bootstrap.
        threads: of the sessions, which compute deterministically; onnxruntime's choice when None.
        native: run our operators on our kernels where these are built.
        sides: names of base and candidate, for errors.
        save_worst: a folder for the samples that drifted furthest; see `sparsify.audit.worst`.
        progress: called with (`outputs`, `layers` or `suspects`, steps done, steps in all).

    Raises:
        InputError: a model or feed cannot be used, inputs or outputs differ, or nothing could be compared.
        UsageError: a budget or a kind that does not fit the model.
    """
    if save_worst is not None:
        worst.check(save_worst)
    wanted = [budgets_.parse(b) if isinstance(b, str) else b for b in budgets]
    old = open_side(base, sides[0], threads, native)
    new = open_side(candidate, sides[1], threads, native)
    _same_names("input", old.get_inputs(), new.get_inputs())
    _same_names("output", old.get_outputs(), new.get_outputs())
    check_outputs(wanted, (o.name for o in old.get_outputs()))
    data.check(feeds, old.get_inputs())
    data.check(feeds, new.get_inputs())
    names = [o.name for o in old.get_outputs()]
    kinds_.check(kinds or {}, names)
    asked = {name: [b.metric for b in wanted if b.output == name] for name in names}
    outputs = {name: Output(name, seed, (kinds or {}).get(name), asked[name]) for name in names}
    if labels is not None and labels.output is not None and labels.output not in names:
        raise UsageError(
            f"the model has no output `{labels.output}`", where=labels.where, hint=f"its outputs are {', '.join(names)}"
        )
    answers = None if labels is None else Answers(labels, seed)
    tally = UserTally(measures)
    for index, feed in enumerate(feeds):
        _compare(old, new, feed, outputs, answers, tally)
        if progress is not None:
            progress("outputs", index + 1, len(feeds))
    measured = {name: output.summary() for name, output in outputs.items() if output.measured}
    notes = [note for output in outputs.values() for note in output.notes()]
    truths = () if answers is None else answers.truths()
    measured = {name: _with_drops(found, truths) for name, found in measured.items()}
    whole = Whole(tally.samples, tally.estimates(seed)) if tally.samples else None
    if not measured:
        raise InputError(f"nothing could be compared: {'; '.join(notes)}", where="audit")
    verdicts = judge(measured, wanted, whole)
    found = DriftReport(measured, verdicts, None, tuple(notes), seed, threads, whole, truths)
    if save_worst is not None:
        found = replace(found, saved=tuple(worst.save(save_worst, old, new, feeds, found)))
    del old, new  # the layers' sessions take their place in memory
    if not layers:
        return found
    where = drift_of_layers(base, candidate, feeds, threads, native, progress, memory=memory, threshold=threshold)
    return replace(found, attribution=where, notes=(*notes, *where.notes))


def _with_drops(output: OutputDrift, truths: Iterable[Truth]) -> OutputDrift:
    drops = {f"{truth.figure}_drop": truth.drop for truth in truths if truth.output == output.name}
    return replace(output, metrics={**output.metrics, **drops})


def open_side(model: Source, name: str, threads: int | None, native: bool) -> Session:
    """A session of one of the two models, that computes the same in every run.

    Raises:
        InputError: onnxruntime refuses the model; names it.
    """
    try:
        return runtime.session(model, threads=threads, native=native, deterministic=True)
    except InputError as error:
        raise InputError(error.what, where=name, hint=error.hint) from error


def _compare(
    old: Session, new: Session, feed: Feed, outputs: Mapping[str, Output], answers: Answers | None, tally: UserTally
) -> None:
    rows = data.rows(feed, old.get_inputs())
    before, after = runtime.run(old, feed), runtime.run(new, feed)
    for name, output in outputs.items():
        base, candidate = before[name], after[name]
        if not isinstance(base, np.ndarray) or not isinstance(candidate, np.ndarray):
            output.tensor = False
            continue
        if base.shape != candidate.shape or metrics.is_float(base) != metrics.is_float(candidate):
            raise InputError(
                f"output `{name}` is {base.dtype} {list(base.shape)} in the base "
                f"but {candidate.dtype} {list(candidate.shape)} in the candidate",
                where=str(getattr(feed, "source", "a feed")),
                hint="only models of the same interface can be compared",
            )
        samples = output.add(base, candidate, feed, rows)
        if answers is not None:
            answers.add(name, output.kind, base, candidate, samples)
    tally.add(before, after, feed, rows)


def _same_names(kind: str, base: Iterable[Any], candidate: Iterable[Any]) -> None:
    before, after = {v.name for v in base}, {v.name for v in candidate}
    if before != after:
        raise InputError(
            f"{kind}s differ: the base has {', '.join(sorted(before))}; the candidate has {', '.join(sorted(after))}",
            hint="only models of the same interface can be compared",
        )
