"""Running base and candidate on the same data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from sparsify import budget as budgets_
from sparsify import data, runtime
from sparsify.audit import metrics, persample
from sparsify.audit.attribution import MEMORY, THRESHOLD, drift_of_layers
from sparsify.audit.metrics import Floats, Sum
from sparsify.audit.report import DriftReport, OutputDrift, check_outputs, judge
from sparsify.budget import Budget
from sparsify.data import Array, Feed
from sparsify.errors import InputError
from sparsify.runtime import Session, Source

Progress = Callable[[str, int, int], None]

FEW_SAMPLES = 10  # there a percentile interval is 18 % narrower than Student's: 1.96 sqrt(9/10) against 2.26
_FLOAT_METRICS = ["cosine", "sqnr_db", "relative_l2", "max_abs"]


def audit(
    base: Source,
    candidate: Source,
    feeds: Sequence[Feed],
    *,
    budgets: Iterable[Budget | str] = (),
    layers: bool = False,
    memory: int = MEMORY,
    threshold: float = THRESHOLD,
    seed: int = 0,
    threads: int | None = 1,
    native: bool = True,
    progress: Progress | None = None,
) -> DriftReport:
    """Measure how far `candidate` has drifted from `base` on `feeds`, and judge it.

    Metrics, samples and intervals are defined in `sparsify.audit.metrics` and `sparsify.data`. An output
    whose leading dimension is not that of the batch gives one sample a feed.

    Args:
        base, candidate: models in any form, with the same inputs and outputs; left as they are.
        feeds: data that took no part in making the candidate.
        budgets: what is allowed; without any, only new or lost NaNs and infinities fail.
        layers: also where the drift arises, a row a node; takes several runs over the data.
        memory: bytes that intermediate values may take for that; the models' weights come on top.
        threshold: of drift, to name the first layer over it.
        seed: of the bootstrap.
        threads: of the sessions, which compute deterministically; onnxruntime's choice when None.
        native: run our operators on our kernels where these are built.
        progress: called with (`outputs`, `layers` or `suspects`, steps done, steps in all).

    Raises:
        InputError: a model or feed cannot be used, inputs or outputs differ, or nothing could be compared.
        UsageError: a budget that does not fit the model.
    """
    wanted = [budgets_.parse(b) if isinstance(b, str) else b for b in budgets]
    old = runtime.session(base, threads=threads, native=native, deterministic=True)
    new = runtime.session(candidate, threads=threads, native=native, deterministic=True)
    _same_names("input", old.get_inputs(), new.get_inputs())
    _same_names("output", old.get_outputs(), new.get_outputs())
    check_outputs(wanted, (o.name for o in old.get_outputs()))
    data.check(feeds, old.get_inputs())
    data.check(feeds, new.get_inputs())
    drifts: dict[str, _Drift] = {o.name: _Drift(o.name) for o in old.get_outputs()}
    for index, feed in enumerate(feeds):
        _compare(old, new, feed, drifts)
        if progress is not None:
            progress("outputs", index + 1, len(feeds))
    asked = {b.output for b in wanted if b.metric == "top1_agreement"}
    measured = {name: d.summary(seed, name in asked) for name, d in drifts.items() if d.size}
    if not measured:
        raise InputError("nothing could be compared: every output is empty or not a tensor", where="audit")
    notes = [note for d in drifts.values() for note in d.notes(d.name in measured)]
    del old, new  # the layers' sessions take their place in memory
    found = None
    if layers:
        found = drift_of_layers(base, candidate, feeds, threads, native, progress, memory=memory, threshold=threshold)
        notes += found.notes
    return DriftReport(measured, judge(measured, wanted), found, tuple(notes), seed, threads)


class _Drift:
    """What one output has left behind so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tensor = True
        self.float = False
        self.distribution = True
        self._samples: list[Floats] = []  # of each feed
        self._sources: list[str | None] = []

    @property
    def size(self) -> int:
        return int(sum(s[:, Sum.SIZE].sum() for s in self._samples))

    def add(self, base: Array, candidate: Array, rows: int | None, source: str | None) -> None:
        self.float = metrics.is_float(base)
        if base.size and self.distribution:
            self.distribution = metrics.is_distribution(base)
        aligned = rows is not None and base.ndim > 0 and base.shape[0] == rows
        samples = rows if aligned and rows is not None else 1
        self._samples.append(metrics.sums(base, candidate, samples) if samples else np.zeros((0, len(Sum))))
        self._sources.append(source)

    def summary(self, seed: int, asked: bool) -> OutputDrift:
        samples = np.concatenate(self._samples)
        total = samples.sum(axis=0)
        names = _FLOAT_METRICS if self.float else ["agreement"]
        classes = asked or self.distribution or metrics.names_classes(self.name)
        if self.float and classes and total[Sum.ROWS]:
            names = [*names, "top1_agreement"]
        return OutputDrift(
            self.name,
            len(samples),
            metrics.intervals(samples, names, seed),
            exact=bool(total[Sum.MATCHES] == total[Sum.SIZE]),
            mismatches=int(total[Sum.MISMATCHES]),
            unseen_share=metrics.unseen_share(len(samples)),
            per_sample=persample.of(self._samples, self._sources, self.float),
        )

    def notes(self, measured: bool) -> list[str]:
        if not self.tensor:
            return [f"`{self.name}` was skipped: it is not a tensor"]
        if not measured:
            return [f"`{self.name}` was skipped: it is empty"]
        found = []
        if same := int(sum(s[:, Sum.LEFT_OUT].sum() for s in self._samples)):
            found.append(f"`{self.name}`: {same} of {self.size} elements are NaN or infinite in both and were left out")
        count = sum(len(s) for s in self._samples)
        if count == 1:
            found.append(f"`{self.name}`: one sample, so the bounds are the value itself and say nothing of others")
        elif count < FEW_SAMPLES:
            found.append(f"`{self.name}`: {count} samples, so the intervals are too narrow")
        return found


def _compare(old: Session, new: Session, feed: Feed, drifts: dict[str, _Drift]) -> None:
    rows = data.rows(feed, old.get_inputs())
    before, after = runtime.run(old, feed), runtime.run(new, feed)
    source = getattr(feed, "source", None)
    for name, drift in drifts.items():
        base, candidate = before[name], after[name]
        if not isinstance(base, np.ndarray) or not isinstance(candidate, np.ndarray):
            drift.tensor = False
            continue
        if base.shape != candidate.shape or metrics.is_float(base) != metrics.is_float(candidate):
            raise InputError(
                f"output `{name}` is {base.dtype} {list(base.shape)} in the base "
                f"but {candidate.dtype} {list(candidate.shape)} in the candidate",
                where=str(source or "a feed"),
                hint="only models of the same interface can be compared",
            )
        drift.add(base, candidate, rows, None if source is None else str(source))


def _same_names(kind: str, base: Iterable[Any], candidate: Iterable[Any]) -> None:
    before, after = {v.name for v in base}, {v.name for v in candidate}
    if before != after:
        raise InputError(
            f"{kind}s differ: the base has {', '.join(sorted(before))}; the candidate has {', '.join(sorted(after))}",
            hint="only models of the same interface can be compared",
        )
