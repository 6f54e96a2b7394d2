"""Metrics as functions of the table of sums, each with its interval (`estimate` has the mathematics).

Both models see the same samples, and a sample's sums are made of the pair: every interval is paired.

Agreement of integers that is 1 is a rate like any other: equal integers would hide a small drift. Only where an output
of floats is equal in every bit are its rates certain. R of psnr_db is not resampled. With a mismatch of NaN or infinity
there is nothing to resample: the bounds are the value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from sparsify.audit.measures.estimate import Estimate, draws, largest, percentiles, rate, wilson
from sparsify.audit.measures.table import Floats, Sum, relative_l2

_RATES = {
    "top1_agreement": (Sum.HITS, Sum.ROWS, 1),
    "top5_agreement": (Sum.TOP5, Sum.ROWS, 5),
    "token_agreement": (Sum.HITS, Sum.ROWS, 1),
    "neighbour_agreement": (Sum.NEIGHBOURS, Sum.QUERIES, 1),
    "agreement": (Sum.MATCHES, Sum.SIZE, 1),
}
_EXTREMES = (Sum.LEAST, Sum.MOST)
# What must be in the table for the metric to say anything.
_NEEDS = {
    **{name: whole for name, (_, whole, _) in _RATES.items()},
    "flips": Sum.ROWS,
    "kl_divergence": Sum.DISTRIBUTIONS,
    "js_divergence": Sum.DISTRIBUTIONS,
    "perplexity_ratio": Sum.TOKENS,
    "box_iou": Sum.BOXES,
}


def measurable(samples: Floats, metrics: Sequence[str]) -> list[str]:
    """Those of `metrics` that samples [n, len(Sum)] have something to say of."""
    total = samples.sum(axis=0)
    return [m for m in metrics if m not in _NEEDS or total[_NEEDS[m]] > 0]


def intervals(samples: Floats, metrics: Sequence[str], seed: int, *, floats: bool = True) -> dict[str, Estimate]:
    """`metrics` over `samples` [n, len(Sum)], with 95 % intervals.

    Args:
        samples, metrics: as `measurable` gives them.
        seed: of the bootstrap.
        floats: whether the output is made of floats.
    """
    summed = np.delete(samples, _EXTREMES, axis=1).sum(axis=0)
    broken = samples[:, Sum.MISMATCHES].any() or not np.isfinite(summed).all()
    exact = floats and all_equal(samples)
    resampled: Floats | None = None
    found = {}
    for name in metrics:
        if name == "max_abs":
            found[name] = largest(samples[:, Sum.MAX_ABS])
        elif name == "flips":
            found[name] = _flips(_rate(samples, "top1_agreement", exact))
        elif name in _RATES:
            found[name] = _rate(samples, name, exact)
        else:
            total = _sums(samples)
            if resampled is None:
                resampled = total[None] if broken else _resample(samples, seed)
            of_sums = _OF_SUMS[name]
            found[name] = percentiles(float(of_sums(total)), of_sums(resampled), len(samples))
    if "psnr_db" in found:
        found["psnr_db"] = _against_peak(found["psnr_db"], samples)
    if "box_iou" in found and found["box_iou"].value == 1 and not exact:
        found["box_iou"] = wilson(1.0, len(samples))
    return found


def all_equal(samples: Floats) -> bool:
    """Whether every element of every sample is equal."""
    return bool(samples[:, Sum.MATCHES].sum() == samples[:, Sum.SIZE].sum())


def _rate(samples: Floats, name: str, exact: bool) -> Estimate:
    part, whole, each = _RATES[name]
    if exact:
        return Estimate(1.0, 1.0, 1.0)
    counted = samples[:, whole] > 0  # a sample without rows says nothing
    return rate(samples[counted, part], each * samples[counted, whole])


def _flips(agreement: Estimate) -> Estimate:
    return Estimate(1 - agreement.value, 1 - agreement.high, 1 - agreement.low, agreement.effective)


def _against_peak(found: Estimate, samples: Floats) -> Estimate:
    """20 log10(R) added to the mean squared error in decibel."""
    peak = float(samples[:, Sum.MOST].max() - samples[:, Sum.LEAST].min())
    gain = 20 * math.log10(peak) if peak > 0 else -math.inf
    if found.value == math.inf:
        return found  # no error
    return Estimate(found.value + gain, found.low + gain, found.high + gain if peak > 0 else -math.inf)


def _sums(samples: Floats) -> Floats:
    total: Floats = samples.sum(axis=0)
    total[list(_EXTREMES)] = 0
    return total


def _resample(samples: Floats, seed: int) -> Floats:
    """Sums [resamples, len(Sum)] of samples drawn with replacement."""
    table = samples.copy()
    table[:, _EXTREMES] = 0
    return np.concatenate([counts @ table for counts in draws(len(samples), seed)])


def _ratio(part: Sum, whole: Sum, nothing: float) -> Callable[[Floats], Floats]:
    """`nothing` is the value of a resample that has no row or element: nothing in it differs."""
    return lambda s: np.where(s[..., whole] > 0, s[..., part] / np.maximum(s[..., whole], 1), nothing)


def _sqnr_db(s: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return -20 * np.log10(relative_l2(s[..., Sum.BASE], s[..., Sum.ERROR]))


def _mean_square_db(s: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return -10 * np.log10(s[..., Sum.ERROR] / np.maximum(s[..., Sum.SIZE] - s[..., Sum.LEFT_OUT], 1))


def _mean_abs(s: Floats) -> Floats:
    return np.asarray(s[..., Sum.ABS] / np.maximum(s[..., Sum.SIZE] - s[..., Sum.LEFT_OUT], 1))


_mean_loss = _ratio(Sum.LOSS, Sum.TOKENS, 0.0)

_OF_SUMS: dict[str, Callable[[Floats], Floats]] = {
    "cosine": _ratio(Sum.COSINE, Sum.COUNT, 1.0),
    "sqnr_db": _sqnr_db,
    "relative_l2": lambda s: relative_l2(s[..., Sum.BASE], s[..., Sum.ERROR]),
    "mean_abs": _mean_abs,
    "kl_divergence": _ratio(Sum.KL, Sum.DISTRIBUTIONS, 0.0),
    "js_divergence": _ratio(Sum.JS, Sum.DISTRIBUTIONS, 0.0),
    "perplexity_ratio": lambda s: np.exp(_mean_loss(s)),
    "psnr_db": _mean_square_db,
    "box_iou": _ratio(Sum.IOU, Sum.BOXES, 1.0),
}
