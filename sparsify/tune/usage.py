"""How much of a budget a drift uses up, on a scale on which drifts add up: 1 is all of it.

metric                      loss
cosine, agreement, ...      1 - value          (bounded above by 1; of small angles, half the squared error)
sqnr_db, psnr_db            10^(-value / 10)   squared error over power
perplexity_ratio            ln value           nats a token
relative_l2                 value^2
others                      value              where lower is better

usage = loss(bound that speaks against the candidate) / loss(limit)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sparsify.audit import DriftReport
from sparsify.budget import METRICS, Budget

_START = 0.05  # a relative squared error to start from where a budget says nothing of one


def start(budgets: Sequence[Budget]) -> float:
    """The relative squared error that the strictest budget stands for, as far as it can be told beforehand."""
    return max(min((_squared(b) for b in budgets), default=_START), 1e-9)


def usage(found: DriftReport, budgets: Sequence[Budget]) -> float:
    """The largest usage of any budget; inf where an output is no longer finite."""
    texts = {str(b): b for b in budgets}
    shares = [0.0]
    for verdict in found.verdicts:
        budget = texts.get(verdict.demand)
        if budget is None or math.isnan(verdict.bound):
            shares.append(0.0 if verdict.passed else math.inf)
            continue
        allowed, lost = _loss(budget.metric, budget.limit), _loss(budget.metric, verdict.bound)
        shares.append(lost / allowed if allowed > 0 else (math.inf if lost > 0 else 0.0))
    return max(shares)


def _loss(metric: str, value: float) -> float:
    if metric in ("sqnr_db", "psnr_db"):
        return float(10 ** (-value / 10))
    if metric == "relative_l2":
        return value**2
    if metric == "perplexity_ratio":
        return math.log(value) if value > 0 else -math.inf
    known = METRICS.get(metric)
    return 1 - value if known is not None and known.higher_is_better else value


def _squared(budget: Budget) -> float:
    if budget.metric == "cosine":
        return 2 * (1 - budget.limit)  # of two vectors of about the same length
    return _loss(budget.metric, budget.limit) if budget.metric in ("sqnr_db", "relative_l2") else _START
