"""What the metrics mean. b and c are one output of base and candidate, d = c - b, i counts samples, n of them.

Float outputs (computed in float64):

    cosine          mean over i of  <b_i, c_i> / (|b_i| |c_i|);   1 where d_i = 0, 0 where only one of the two is 0
    sqnr_db         10 log10(sum_i |b_i|^2 / sum_i |d_i|^2);      inf where d = 0
    relative_l2     sqrt(sum_i |d_i|^2 / sum_i |b_i|^2);          0 where d = 0, inf where only b = 0
    max_abs         max over i and elements of |d|
    top1_agreement  rows whose argmax over the last axis is equal / rows;   class-like outputs only

All other outputs (integers, bools, strings):

    agreement       elements that are equal / elements

An output is class-like when its rank is 2 or 3, its last axis has 2 or more elements, and either its name
says so (a word of it begins with logit, prob, softmax, score or class, and none with embed, hidden, feature
or state), or the base's output is a distribution on every row: no element below 0, each sum 1 to within 1e-3.
A budget that asks for top1_agreement of an output by name makes it class-like, if its rank allows.
Of equal largest elements the first counts.

Elements that are NaN or infinite in both, and the same, are left out of the float sums. Any other NaN
or infinity, in either, is a mismatch: cosine is then NaN, relative_l2 and max_abs are inf, sqnr_db is -inf,
and the audit fails whatever the budget.

Each sample leaves one row of sums behind and its outputs are dropped, so memory does not grow with them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from sparsify.data import Array

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
_TAIL = (1 - CONFIDENCE) / 2
_NORMAL = 1.959964  # the normal distribution's 97.5 % point
_RATES = ("top1_agreement", "agreement")
_RESAMPLES = 2000
_BLOCK = 2_000_000  # counts drawn at a time: 16 MB
_CLASS_WORDS = re.compile(r"(?:^|[^a-z])(?:logit|prob|softmax|score|class)")
_NOT_CLASS_WORDS = re.compile(r"(?:^|[^a-z])(?:embed|hidden|feature|state)")
_DISTRIBUTION_TOLERANCE = 1e-3  # a float16 softmax over 1000 classes sums to 1 within 1000 * 2^-11 * 1e-3


class Sum(IntEnum):
    """What a sample leaves behind; all but MAX_ABS are summed over samples."""

    COUNT = 0  # 1
    COSINE = 1
    BASE = 2  # |b|^2
    ERROR = 3  # |d|^2
    MAX_ABS = 4
    HITS = 5  # rows with equal argmax
    ROWS = 6
    MATCHES = 7  # equal elements
    SIZE = 8
    MISMATCHES = 9  # elements that are NaN or infinite in one, or differently so
    LEFT_OUT = 10  # elements that are NaN or infinite in both, and the same


@dataclass(frozen=True)
class Estimate:
    """A metric over the samples, with the bounds of its 95 % interval (see `intervals`)."""

    value: float
    low: float
    high: float


def is_float(array: Array) -> bool:
    """Whether the float metrics apply; bfloat16 is no float to NumPy."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def sums(base: Array, candidate: Array, samples: int) -> Floats:
    """[samples, len(Sum)] of two arrays of equal shape whose elements are `samples` equal parts, in order."""
    found = np.zeros((samples, len(Sum)))
    found[:, Sum.COUNT] = 1
    found[:, Sum.SIZE] = base.size // samples
    if not is_float(base):
        found[:, Sum.MATCHES] = (base == candidate).reshape(samples, -1).sum(axis=1)
        return found
    with np.errstate(over="ignore", invalid="ignore"):
        b, c, bad = comparable(base, candidate)
        classes = base.shape[-1] if 2 <= base.ndim <= 3 else 0
        if classes >= 2 and base.size:
            hits = (base.argmax(-1) == candidate.argmax(-1)) & ~bad.any(-1)
            found[:, Sum.HITS] = hits.reshape(samples, -1).sum(axis=1)
            found[:, Sum.ROWS] = hits.size // samples
        found[:, Sum.LEFT_OUT] = (~np.isfinite(base) & ~bad).reshape(samples, -1).sum(axis=1)
        b, c, bad = b.reshape(samples, -1), c.reshape(samples, -1), bad.reshape(samples, -1)
        d = c - b
        found[:, Sum.MATCHES] = ((d == 0) & ~bad).sum(axis=1)
        found[:, Sum.BASE], found[:, Sum.ERROR] = (b * b).sum(axis=1), (d * d).sum(axis=1)
        found[:, Sum.MAX_ABS] = np.abs(d).max(axis=1, initial=0)
        found[:, Sum.COSINE] = _cosine(b, c, found[:, Sum.ERROR] == 0)
        found[:, Sum.MISMATCHES] = bad.sum(axis=1)
    broken = bad.any(axis=1)
    found[broken, Sum.COSINE] = np.nan
    found[broken, Sum.ERROR] = found[broken, Sum.MAX_ABS] = np.inf
    return found


def comparable(base: Array, candidate: Array) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Both as float64 with what is not finite set to 0, and where that hides a difference."""
    b, c = base.astype(np.float64), candidate.astype(np.float64)
    odd = ~(np.isfinite(b) & np.isfinite(c))
    bad = odd & ~((b == c) | (np.isnan(b) & np.isnan(c)))
    b[odd] = c[odd] = 0
    return b, c, bad


def relative_l2(base: npt.ArrayLike, error: npt.ArrayLike) -> Floats:
    """sqrt(error / base) of squared norms; 0 where there is no error, inf where there is one and no base."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.equal(error, 0), 0.0, np.sqrt(np.divide(error, base)))


def names_classes(name: str) -> bool:
    """Whether an output's name says that its last axis are classes."""
    lower = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return bool(_CLASS_WORDS.search(lower)) and not _NOT_CLASS_WORDS.search(lower)


def is_distribution(array: Array) -> bool:
    """Whether every row of the last axis is a probability distribution."""
    if not is_float(array) or not 2 <= array.ndim <= 3 or array.shape[-1] < 2 or not array.size:
        return False
    wide = array.astype(np.float64)
    return bool((wide >= 0).all() and (np.abs(wide.sum(-1) - 1) <= _DISTRIBUTION_TOLERANCE).all())


def intervals(samples: Floats, metrics: list[str], seed: int) -> dict[str, Estimate]:
    """`metrics` over `samples` [n, len(Sum)], with 95 % intervals.

    For all but max_abs: the percentile bootstrap (Efron 1979). All are functions of sums over samples, so a
    resample is a vector of n counts, drawn from the multinomial distribution, times the table of sums. Bounds
    are order statistics of 2000 resamples, taken outwards, and contain the value. With few samples percentile
    intervals are too narrow (by about the ratio of Student's t to the normal quantile); with one they are a point.

    A rate (top1_agreement, agreement) of exactly 0 or 1 leaves the bootstrap nothing to vary, which would call few
    samples proof. There the bounds are those of Wilson (1927) with every sample counted once, however many rows it
    has: with z = 1.96 at most z^2 / (n + z^2) from the value. Outputs that are equal in every bit keep theirs.

    For max_abs the bootstrap says nothing upwards: no resample exceeds the largest that was seen, and no
    distribution-free upper bound on a population's maximum exists. `high` is therefore the largest seen, and
    what it is good for is `unseen_share`. `low` is the bootstrap's 2.5 % point in closed form: the maximum of a
    resample is at most the r-th smallest with probability (r/n)^n, so r = ceil(n * 0.025^(1/n)).

    With a mismatch of NaN or infinity there is nothing to resample: the bounds are the value.
    """
    total = samples.sum(axis=0)
    broken = total[Sum.MISMATCHES] > 0 or not np.isfinite(total).all()
    resampled = total[None] if broken else _resample(samples, seed)
    found = {}
    for name in metrics:
        if name == "max_abs":
            found[name] = _largest(samples[:, Sum.MAX_ABS])
            continue
        value, spread = float(_OF_SUMS[name](total)), _OF_SUMS[name](resampled)
        ordered = np.sort(spread)  # np.quantile interpolates even between infinities
        low, high = ordered[math.floor(_TAIL * (len(spread) - 1))], ordered[math.ceil((1 - _TAIL) * (len(spread) - 1))]
        found[name] = Estimate(value, float(np.minimum(low, value)), float(np.maximum(high, value)))
        if name in _RATES and value in (0.0, 1.0) and total[Sum.MATCHES] != total[Sum.SIZE]:
            found[name] = _unanimous(value, len(samples))
    return found


def unseen_share(n: int) -> float:
    """The share p of all samples that may exceed the largest of n seen, at 95 % confidence.

    Were the share that exceeds it larger than p, all n would have stayed below that quantile with
    probability less than (1 - p)^n = 0.05; hence p = 1 - 0.05^(1/n), about 3/n.
    """
    return float(1 - (1 - CONFIDENCE) ** (1 / n))


def _unanimous(value: float, n: int) -> Estimate:
    """Wilson's interval for a rate that is 0 or 1 in n samples."""
    room = _NORMAL**2 / (n + _NORMAL**2)
    return Estimate(value, value - room, value) if value else Estimate(value, value, value + room)


def _cosine(b: Floats, c: Floats, same: npt.NDArray[np.bool_]) -> Floats:
    norms = np.sqrt((b * b).sum(axis=1)) * np.sqrt((c * c).sum(axis=1))
    cosine = np.divide((b * c).sum(axis=1), norms, out=np.zeros_like(norms), where=norms != 0)
    return np.where(same, 1.0, np.clip(cosine, -1, 1))


def _resample(samples: Floats, seed: int) -> Floats:
    """Sums [resamples, len(Sum)] of samples drawn with replacement."""
    n = len(samples)
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // n)
    share = np.full(n, 1 / n)
    starts = range(0, _RESAMPLES, block)
    parts = [rng.multinomial(n, share, min(block, _RESAMPLES - s)).astype(np.float64) @ samples for s in starts]
    return np.concatenate(parts)


def _largest(values: Floats) -> Estimate:
    n = len(values)
    ordered = np.sort(values)
    rank = int(np.ceil(n * _TAIL ** (1 / n)))
    return Estimate(float(ordered[-1]), float(ordered[rank - 1]), float(ordered[-1]))


def _ratio(part: Sum, whole: Sum) -> Callable[[Floats], Floats]:
    # Resamples without a single row or element have nothing that disagrees.
    return lambda s: np.where(s[..., whole] > 0, s[..., part] / np.maximum(s[..., whole], 1), 1.0)


def _sqnr_db(s: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return -20 * np.log10(relative_l2(s[..., Sum.BASE], s[..., Sum.ERROR]))


_OF_SUMS: dict[str, Callable[[Floats], Floats]] = {
    "cosine": lambda s: s[..., Sum.COSINE] / s[..., Sum.COUNT],
    "sqnr_db": _sqnr_db,
    "relative_l2": lambda s: relative_l2(s[..., Sum.BASE], s[..., Sum.ERROR]),
    "top1_agreement": _ratio(Sum.HITS, Sum.ROWS),
    "agreement": _ratio(Sum.MATCHES, Sum.SIZE),
}
