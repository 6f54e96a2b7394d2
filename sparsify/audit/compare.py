"""Running base and candidate on the same data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparsify import budget as budgets_
from sparsify import data, runtime
from sparsify.audit import worst
from sparsify.audit.attribution import MEMORY, THRESHOLD, drift_of_layers
from sparsify.audit.judging import check_outputs
from sparsify.audit.labels import Labels
from sparsify.audit.ledger import Ledger
from sparsify.audit.report import DriftReport
from sparsify.audit.usermetrics import UserMetric
from sparsify.budget import Budget
from sparsify.data import Feed
from sparsify.errors import InputError
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
    ledger = Ledger([o.name for o in old.get_outputs()], wanted, kinds or {}, labels, measures, seed)
    for index, feed in enumerate(feeds):
        ledger.add(feed, data.rows(feed, old.get_inputs()), runtime.run(old, feed), runtime.run(new, feed))
        if progress is not None:
            progress("outputs", index + 1, len(feeds))
    found = ledger.report(threads)
    if save_worst is not None:
        found = replace(found, saved=tuple(worst.save(save_worst, old, new, feeds, found)))
    del old, new  # the layers' sessions take their place in memory
    if not layers:
        return found
    where = drift_of_layers(base, candidate, feeds, threads, native, progress, memory=memory, threshold=threshold)
    return replace(found, attribution=where, notes=(*found.notes, *where.notes))


def open_side(model: Source, name: str, threads: int | None, native: bool) -> Session:
    """A session of one of the two models, that computes the same in every run.

    Raises:
        InputError: onnxruntime refuses the model; names it.
    """
    try:
        return runtime.session(model, threads=threads, native=native, deterministic=True)
    except InputError as error:
        raise InputError(error.what, where=name, hint=error.hint) from error


def _same_names(kind: str, base: Iterable[Any], candidate: Iterable[Any]) -> None:
    before, after = {v.name for v in base}, {v.name for v in candidate}
    if before != after:
        raise InputError(
            f"{kind}s differ: the base has {', '.join(sorted(before))}; the candidate has {', '.join(sorted(after))}",
            hint="only models of the same interface can be compared",
        )
