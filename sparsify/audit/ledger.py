"""What feeds leave behind, and the report that it comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sparsify.audit import kinds as kinds_
from sparsify.audit import metrics
from sparsify.audit.answers import Answers
from sparsify.audit.judging import judge
from sparsify.audit.labels import Labels
from sparsify.audit.output import Output
from sparsify.audit.report import DriftReport, Whole
from sparsify.audit.usermetrics import UserMetric, UserTally
from sparsify.budget import Budget
from sparsify.data import Feed
from sparsify.errors import InputError


class Ledger:
    """Outputs, answers and brought metrics of all feeds; arguments as of `sparsify.audit.audit`.

    Raises:
        UsageError: kinds or labels of outputs that there are not.
    """

    def __init__(
        self,
        names: Sequence[str],
        budgets: Sequence[Budget],
        kinds: Mapping[str, str],
        labels: Labels | None,
        measures: Sequence[UserMetric],
        seed: int,
    ) -> None:
        kinds_.check(kinds, names)
        if labels is not None:
            labels.check(names)
        asked = {name: [b.metric for b in budgets if b.output == name] for name in names}
        self._outputs = {name: Output(name, seed, kinds.get(name), asked[name]) for name in names}
        self._answers = None if labels is None else Answers(labels, seed)
        self._tally = UserTally(measures)
        self._budgets, self._seed = budgets, seed

    def add(self, feed: Feed, rows: int | None, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Take in what both models made of one feed of `rows` samples."""
        for name, output in self._outputs.items():
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
            if self._answers is not None:
                self._answers.add(name, output.kind, base, candidate, samples)
        self._tally.add(before, after, feed, rows)

    def report(self, threads: int | None) -> DriftReport:
        """What it all comes to."""
        measured = {name: output.summary() for name, output in self._outputs.items() if output.measured}
        notes = tuple(note for output in self._outputs.values() for note in output.notes())
        if not measured:
            raise InputError(f"nothing could be compared: {'; '.join(notes)}", where="audit")
        truths = () if self._answers is None else self._answers.truths()
        truths = tuple(truth for truth in truths if truth.output in measured)
        for truth in truths:
            found = measured[truth.output]
            drop = {f"{truth.figure}_drop": truth.drop}
            measured[truth.output] = replace(found, metrics={**found.metrics, **drop})
        whole = Whole(self._tally.samples, self._tally.estimates(self._seed)) if self._tally.samples else None
        verdicts = judge(measured, self._budgets, whole)
        return DriftReport(measured, verdicts, None, notes, self._seed, threads, whole, truths)
