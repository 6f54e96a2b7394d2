"""How much of a budget a drift uses up, on a scale on which drifts add up: 1 is all of it.

metric                      loss
cosine, agreement, ...      1 - value          (bounded above by 1; of small angles, half the squared error)
sqnr_db, psnr_db            10^(-value / 10)   squared error over power
perplexity_ratio            ln value           nats a token
relative_l2                 value^2
of somebody's own           |value - best|     best: where nothing has drifted
others                      value              where lower is better

usage = loss(bound that speaks against the candidate) / loss(limit)

A limit that allows no loss at all is used up by whoever keeps it: that a metric has not moved on a few samples does not
say how far from moving it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sparsify.audit import DriftReport
from sparsify.budget import METRICS, Budget


def start(budgets: Sequence[Budget]) -> float | None:
    """The relative squared error that the strictest budget stands for; None where none can be told beforehand."""
    squared = [s for b in budgets if (s := _squared(b)) is not None]
    return max(min(squared), 1e-9) if squared else None


def usage(found: DriftReport, budgets: Sequence[Budget], best: Mapping[str, float] | None = None) -> float:
    """The largest usage of any budget; inf where an output is no longer finite.

    `best` has, by name, what metrics of somebody's own are where nothing has drifted.
    """
    best = best or {}
    texts = {str(b): b for b in budgets}
    shares = [0.0]
    for verdict in found.verdicts:
        budget = texts.get(verdict.demand)
        if budget is None or math.isnan(verdict.bound):
            shares.append(0.0 if verdict.passed else math.inf)
            continue
        allowed, lost = (_loss(budget.metric, v, best.get(budget.metric)) for v in (budget.limit, verdict.bound))
        shares.append(lost / allowed if allowed > 0 else (math.inf if lost > 0 else 1.0))
    return max(shares)


def _loss(metric: str, value: float, best: float | None = None) -> float:
    if best is not None:
        return best - value if METRICS[metric].higher_is_better else value - best
    if metric in ("sqnr_db", "psnr_db"):
        return float(10 ** (-value / 10))
    if metric == "relative_l2":
        return value**2
    if metric == "perplexity_ratio":
        return math.log(value) if value > 0 else -math.inf
    known = METRICS.get(metric)
    return 1 - value if known is not None and known.higher_is_better else value


def _squared(budget: Budget) -> float | None:
    if budget.metric == "cosine":
        return 2 * (1 - budget.limit)  # of two vectors of about the same length
    return _loss(budget.metric, budget.limit) if budget.metric in ("sqnr_db", "relative_l2") else None
