"""Metrics that people bring: `MODULE:FUNCTION`, a function of three mappings from names to arrays that gives a number.

    def map_iou(base, candidate, feed):
        "Overlap of the masks that the two models draw."
        return iou(base["mask"][0] > 0.5, candidate["mask"][0] > 0.5)

    map_iou.higher_is_better = True

It is called once for each sample, with the outputs of base and of candidate and the inputs of that sample. Arrays keep
their rank: along the batch they have length 1. What has no batch dimension comes whole. The metric's name is the
function's, and is what budgets call it: `map_iou>=0.98`. `higher_is_better` is True where the function does not say.
Its value is the mean over samples, its interval the bootstrap's. Naming a function is asking for its code to be run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from sparsify import budget
from sparsify.audit.measures.estimate import Estimate, draws, percentiles
from sparsify.budget import Metric
from sparsify.data import Array, Feed, functions
from sparsify.errors import InputError, UsageError

Function: TypeAlias = Callable[[Mapping[str, Array], Mapping[str, Array], Mapping[str, Array]], float]
_HINT = "it takes (base, candidate, feed), mappings from names to the arrays of one sample, and returns a number"


@dataclass(frozen=True)
class UserMetric:
    """A function and the metric that it is.

    Attributes:
        metric: under the function's name, known to budgets.
        function: see above.
        where: as the user named it, for errors.
    """

    metric: Metric
    function: Function
    where: str

    def __call__(self, base: Feed, candidate: Feed, feed: Feed, sample: int) -> float:
        """The metric of one sample.

        Raises:
            InputError: the function fails, or gives no number.
        """
        try:
            given = self.function(base, candidate, feed)
        except Exception as error:  # not our code
            what = f"it fails on sample {sample}: {type(error).__name__}: {error}"
            raise InputError(what, where=self.where, hint=_HINT) from error
        try:
            return float(np.asarray(given).item())
        except (TypeError, ValueError) as error:
            what = f"it gives a `{type(given).__name__}` on sample {sample}, not a number"
            raise InputError(what, where=self.where, hint=_HINT) from error


def load(given: str | Function) -> UserMetric:
    """The metric that `MODULE:FUNCTION`, or a function, is; budgets know it from now on.

    Raises:
        UsageError: no such module or function, or it has the name of a metric that there is already.
        InputError: the module fails.
    """
    where = f"--metric {given}" if isinstance(given, str) else f"metric {getattr(given, '__name__', given)!s}"
    function = _find(given, where) if isinstance(given, str) else given
    name = getattr(function, "__name__", "")
    if not name.isidentifier():
        raise UsageError("the function has no name that a budget could use", where=where, hint="write it with `def`")
    about = " ".join((getattr(function, "__doc__", None) or "a metric of the user's").split())
    metric = Metric(name, bool(getattr(function, "higher_is_better", True)), -math.inf, math.inf, about)
    if not budget.add(metric):
        raise UsageError(f"`{name}` is a metric already", where=where, hint="give the function another name")
    return UserMetric(metric, function, where)


class UserTally:
    """User metrics over all samples."""

    def __init__(self, metrics: Sequence[UserMetric]) -> None:
        self._metrics = metrics
        self._values: list[list[float]] = [[] for _ in metrics]
        self.samples = 0

    def add(self, base: Mapping[str, Any], candidate: Mapping[str, Any], feed: Feed, rows: int | None) -> None:
        """Take in one feed of `rows` samples, or of one where there is no batch."""
        if not self._metrics:
            return
        for row in range(1 if rows is None else rows):
            old, new, given = (_sample(arrays, row, rows) for arrays in (base, candidate, feed))
            for metric, values in zip(self._metrics, self._values, strict=True):
                values.append(metric(old, new, given, self.samples))
            self.samples += 1

    def estimates(self, seed: int) -> dict[str, Estimate]:
        """By name."""
        found = {}
        for metric, values in zip(self._metrics, self._values, strict=True):
            table, n = np.array(values), len(values)
            finite = bool(np.isfinite(table).all())
            drawn = [counts @ table / n for counts in draws(n, seed)] if finite else [np.array([table.mean()])]
            found[metric.metric.name] = percentiles(float(table.mean()), np.concatenate(drawn), n)
        return found


def _sample(arrays: Mapping[str, Any], row: int, rows: int | None) -> Feed:
    return {
        name: a[row : row + 1] if rows is not None and isinstance(a, np.ndarray) and a.shape[:1] == (rows,) else a
        for name, a in arrays.items()
    }


def _find(name: str, where: str) -> Function:
    if not all(name.partition(":")):
        raise UsageError("a metric is MODULE:FUNCTION", where=where, hint=_HINT)
    found: Function = functions.find(name, where, missing="there is no module `{module}`", hint=_HINT)
    return found
