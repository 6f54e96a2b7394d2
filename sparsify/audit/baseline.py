"""No worse than what was accepted, beyond noise.

Of each metric that both reports have, v is its value, h the half width of its 95 % interval towards the side that
speaks against the candidate, and w how much worse the new value is (v_old - v_new where higher is better, else
v_new - v_old). The candidate passes while

    w <= sqrt(h_old^2 + h_new^2)

which is the half width of a difference of independent estimates. Both were taken on the same samples, on which drifts
of like candidates rise and fall together; so the true noise is smaller, and the gate errs on the side of passing. Of
max_abs, whose interval has no other end than the largest seen, h is the half width of the end that it has.

No figure is compared that is not finite, but an infinite ratio to no error at all, which only another such one equals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from sparsify.audit.metrics import Estimate
from sparsify.audit.report import OutputDrift, Verdict
from sparsify.budget import METRICS

Figures = Mapping[str, Mapping[str, Estimate]]  # by output and metric


def judge(accepted: Figures, outputs: Mapping[str, OutputDrift]) -> tuple[tuple[Verdict, ...], tuple[str, ...]]:
    """A verdict for each metric of each output in both, and a note for each output that has some in one only."""
    verdicts: list[Verdict] = []
    notes: list[str] = []
    for name in dict.fromkeys([*accepted, *outputs]):
        old = accepted.get(name, {})
        new = outputs[name].metrics if name in outputs else {}
        usable = [metric for metric in old if metric in new and metric in METRICS and _usable(old[metric])]
        verdicts += [_verdict(metric, name, old[metric], new[metric]) for metric in usable]
        notes += _missing(name, [m for m in [*old, *new] if m not in usable])
    return tuple(verdicts), tuple(notes)


def _usable(figure: Estimate) -> bool:
    return not math.isnan(figure.value) and figure.value != -math.inf


def _missing(name: str, metrics: Iterable[str]) -> list[str]:
    found = ", ".join(f"`{metric}`" for metric in dict.fromkeys(metrics))
    return (
        [f"`{name}`: {found} cannot be held against the baseline: not in both reports, or no number"] if found else []
    )


def _verdict(metric: str, output: str, old: Estimate, new: Estimate) -> Verdict:
    higher = METRICS[metric].higher_is_better
    noise = math.hypot(_half_width(metric, old), _half_width(metric, new))
    limit = old.value - noise if higher else old.value + noise
    worse = 0.0 if old.value == new.value else (old.value - new.value) * (1 if higher else -1)
    passed = math.isfinite(noise) and worse <= noise
    what = f"`{metric}` of `{output}` is {new.value:.6g}, in the baseline {old.value:.6g}; noise is {noise:.2g}"
    demand = f"baseline {metric}@{output}"
    undecided = math.isinf(noise) and not math.isnan(new.value)
    return Verdict(demand, output, new.value, passed, what, value=new.value, limit=limit, undecided=undecided)


def _half_width(metric: str, figure: Estimate) -> float:
    """Towards the side that speaks against the candidate."""
    end = figure.low if METRICS[metric].higher_is_better or metric == "max_abs" else figure.high
    return 0.0 if end == figure.value else abs(figure.value - end)
