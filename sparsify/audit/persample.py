"""Drift of each sample of an output, and where the worst ones come from: for histograms and lists of culprits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsify.audit import metrics
from sparsify.audit.metrics import Floats, Sum

MOST_VALUES = 1000  # a histogram needs no more, and a report stays small
MOST_WORST = 10


@dataclass(frozen=True)
class Sample:
    """One sample and its drift.

    Attributes:
        sample: its number, counted from 0 over all feeds.
        feed: the number of the feed that it is in.
        row: its index along the feed's batch dimension; 0 where the feed is one sample.
        source: the file, or the line of it, that it came from; None when there is none.
        value: its drift.
    """

    sample: int
    feed: int
    row: int
    source: str | None
    value: float


@dataclass(frozen=True)
class PerSample:
    """Drift of the samples of one output.

    Attributes:
        metric: `relative_l2` of a sample, |d_i| / |b_i|; `disagreement` of outputs that are not floats, the share of a
            sample's elements that differ.
        values: of the samples in order: of every `every`-th where there are more than 1000. Infinite where a sample
            has a mismatch of NaN or infinity.
        every: 1 where all samples are there.
        worst: the ten samples that drifted furthest, of all, worst first; those that did not drift are not there.
    """

    metric: str
    values: tuple[float, ...]
    every: int
    worst: tuple[Sample, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON carries it; a value that is not finite is null."""
        return {
            "metric": self.metric,
            "every": self.every,
            "values": [_finite(v) for v in self.values],
            "worst": [
                {"sample": s.sample, "feed": s.feed, "row": s.row, "source": s.source, "value": _finite(s.value)}
                for s in self.worst
            ],
        }


def of(tables: Sequence[Floats], origins: Sequence[Sequence[str | None]], floats: bool) -> PerSample:
    """Drift per sample from the sums that each feed left, [samples, len(Sum)], and where each sample came from."""
    sums = np.concatenate(tables)
    if floats:
        name, values = "relative_l2", metrics.relative_l2(sums[:, Sum.BASE], sums[:, Sum.ERROR])
    else:
        name, values = "disagreement", 1 - sums[:, Sum.MATCHES] / np.maximum(sums[:, Sum.SIZE], 1)
    ends = np.cumsum([len(t) for t in tables])
    worst = []
    for number in np.argsort(-values, kind="stable")[:MOST_WORST].tolist():
        if values[number] > 0:
            feed = int(np.searchsorted(ends, number, side="right"))
            row = number - (int(ends[feed - 1]) if feed else 0)
            worst.append(Sample(number, feed, row, origins[feed][row], float(values[number])))
    every = math.ceil(len(values) / MOST_VALUES)
    return PerSample(name, tuple(values[::every].tolist()), every, tuple(worst))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
