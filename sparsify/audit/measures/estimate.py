"""A figure with its 95 % interval, and the two ways to find one.

Rates: Wilson's interval (1927) at the effective number of rows. Rows of one sample are not independent. With h_i of m_i
rows of sample i that agree, M rows in all and p = sum h_i / M, the variance of p is v = sum (h_i - p m_i)^2 / M^2, and
the effective number is p (1 - p) / v, at most M (the design effect of Kish 1965). Where samples have more than one row
v is itself an estimate from n samples: the number is taken times (z / t)^2, t Student's quantile of n - 1 degrees (Korn
and Graubard 1998). Where p is 0 or 1 nothing varied, and every sample counts once, however many rows it has.

All else: the percentile bootstrap (Efron 1979). Figures are functions of sums over samples, so a resample is a vector
of n counts, drawn from the multinomial distribution, times the table of sums. Bounds are order statistics of 2000
resamples, taken outwards, and contain the value. Percentile intervals are too narrow for few samples, by sqrt((n - 1) /
n) and by the normal quantile in place of Student's: so the tails are Phi(-sqrt(n / (n - 1)) t) rather than 2.5 %
(Hesterberg 2015, "expanded percentile"). One sample gives a point.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from sparsify.audit.measures.table import Floats

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
NORMAL = 1.959963984540054  # the normal distribution's 97.5 % point
RESAMPLES = 2000
_BLOCK = 2_000_000  # counts drawn at a time: 16 MB


@dataclass(frozen=True)
class Estimate:
    """A metric over the samples, with the bounds of its 95 % interval.

    Attributes:
        value, low, high: of the metric.
        effective: independent observations that a rate stands on; None of what is not a rate.
    """

    value: float
    low: float
    high: float
    effective: float | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, float | None]:
        """As JSON carries it; a figure that is not finite is null."""
        figures = {"value": self.value, "low": self.low, "high": self.high}
        return {name: figure if math.isfinite(figure) else None for name, figure in figures.items()}


def rate(hits: Floats, rows: Floats) -> Estimate:
    """The rate sum(hits) / sum(rows) of samples [n], each with `hits` of `rows`."""
    n, total = len(rows), rows.sum()
    p = float(hits.sum() / total)
    if p in (0.0, 1.0) or n == 1 or not math.isfinite(p):
        return wilson(p, n)
    variance = float((((hits - p * rows) / total) ** 2).sum())
    effective = min(p * (1 - p) / variance, total) if variance > 0 else total
    if rows.max() > 1:
        effective *= (NORMAL / stats.t.ppf(1 - TAIL, n - 1)) ** 2
    return wilson(p, float(effective))


def wilson(rate: float, n: float) -> Estimate:
    """Wilson's interval of a rate in n independent observations."""
    z2 = NORMAL**2
    middle, scale = rate + z2 / (2 * n), 1 + z2 / n
    half = NORMAL * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    low = 0.0 if rate == 0 else min(rate, (middle - half) / scale)
    return Estimate(rate, low, 1.0 if rate == 1 else max(rate, (middle + half) / scale), n)


def percentiles(value: float, resampled: Floats, n: int) -> Estimate:
    """The interval that a figure's resamples give, of n samples each."""
    tail = stats.norm.cdf(-math.sqrt(n / (n - 1)) * stats.t.ppf(1 - TAIL, n - 1)) if n > 1 else TAIL
    ordered, last = np.sort(resampled), len(resampled) - 1  # np.quantile interpolates even between infinities
    low, high = ordered[math.floor(tail * last)], ordered[math.ceil((1 - tail) * last)]
    return Estimate(value, float(np.minimum(low, value)), float(np.maximum(high, value)))


def largest(values: Floats) -> Estimate:
    """The largest that was seen.

    The bootstrap says nothing upwards: no resample exceeds the largest that was seen, and no distribution-free upper
    bound on a population's maximum exists. `high` is therefore the largest seen, and what it is good for is
    `unseen_share`. `low` is the bootstrap's 2.5 % point in closed form: the maximum of a resample is at most the r-th
    smallest with probability (r/n)^n, so r = ceil(n * 0.025^(1/n)).
    """
    n = len(values)
    ordered = np.sort(values)
    rank = int(np.ceil(n * TAIL ** (1 / n)))
    return Estimate(float(ordered[-1]), float(ordered[rank - 1]), float(ordered[-1]))


def unseen_share(n: int) -> float:
    """The share p of all samples that may exceed the largest of n seen, at 95 % confidence.

    Were the share that exceeds it larger than p, all n would have stayed below that quantile with
    probability less than (1 - p)^n = 0.05; hence p = 1 - 0.05^(1/n), about 3/n.
    """
    return float(1 - (1 - CONFIDENCE) ** (1 / n))


def draws(n: int, seed: int) -> Iterator[Floats]:
    """How often each of n samples is in a resample: [some, n] at a time, RESAMPLES in all."""
    random = np.random.default_rng(seed)
    block = max(1, _BLOCK // n)
    share = np.full(n, 1 / n)
    for start in range(0, RESAMPLES, block):
        yield random.multinomial(n, share, min(block, RESAMPLES - start)).astype(np.float64)
