"""The verdict on an output: each budget by the bound that speaks against the candidate.

passed      the bound is inside
undecided   the value is inside, the bound is not: too few samples, and how many would do
failed      the value itself is outside, or a NaN or infinity is new or lost
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from sparsify.audit.measures.estimate import NORMAL, Estimate
from sparsify.audit.report import OutputDrift, Verdict, Whole
from sparsify.budget import METRICS, Budget
from sparsify.errors import UsageError

Subject: TypeAlias = OutputDrift | Whole


def judge(
    outputs: Mapping[str, OutputDrift], budgets: Iterable[Budget], whole: Whole | None = None
) -> tuple[Verdict, ...]:
    """Verdicts on `outputs`, and on all of them together, each by the bound that speaks against the candidate.

    Raises:
        UsageError: a budget for an output that is not there, or for a metric that no such output has.
    """
    verdicts = [
        Verdict("finite", o.name, float(o.mismatches), False, _NOT_FINITE.format(o.name, o.mismatches))
        for o in outputs.values()
        if o.mismatches
    ]
    subjects: list[Subject] = [*outputs.values(), *([whole] if whole else [])]
    for budget in budgets:
        verdicts += [_verdict(budget, subject) for subject in _about(budget, subjects)]
    return tuple(verdicts)


_NOT_FINITE = "`{}` has {} elements that are NaN or infinite in one model only"


def check_outputs(budgets: Iterable[Budget], names: Iterable[str]) -> None:
    """Refuse budgets for outputs that the model does not have.

    Raises:
        UsageError: names the outputs there are.
    """
    known = list(names)
    for budget in budgets:
        if budget.output is not None and budget.output not in known:
            near = difflib.get_close_matches(budget.output, known, 1)
            raise UsageError(
                f"the model has no output `{budget.output}`",
                where=f"budget `{budget}`",
                hint=f"did you mean `{near[0]}`?" if near else f"its outputs are {', '.join(known)}",
            )


def _about(budget: Budget, subjects: Sequence[Subject]) -> list[Subject]:
    chosen = [o for o in subjects if budget.output in (None, o.name)]
    found = [o for o in chosen if budget.metric in o.metrics]
    if not found:
        measured = sorted({m for o in chosen for m in o.metrics})
        hint = f"measured there: {', '.join(measured)}" if measured else "that output was skipped"
        if budget.metric == "top1_agreement" and budget.output is None:
            hint = f"name an output whose last axis are classes: `top1_agreement@OUTPUT>={budget.limit!r}`"
        if budget.metric.endswith("_drop"):
            hint = f"{hint}; `--labels FILE` says what is right"
        raise UsageError(f"no output has `{budget.metric}`", where=f"budget `{budget}`", hint=hint)
    return found


def _verdict(budget: Budget, output: Subject) -> Verdict:
    metric, estimate = METRICS[budget.metric], output.metrics[budget.metric]
    bound, side = (estimate.low, "at least") if metric.higher_is_better else (estimate.high, "at most")
    subject, allowed = f"`{budget.metric}` of `{output.name}` is", f"allowed {metric.sign} {budget.limit:g}"
    what, needed = f"{subject} {side} {bound:.6g}, {allowed}", None
    # One sample has no spread. max_abs and an output that is equal in every bit go by what was seen anyway.
    point = output.samples == 1 and not output.exact and estimate.low == estimate.high and budget.metric != "max_abs"
    passed = budget.allows(bound) and not point
    undecided = budget.allows(estimate.value) and not passed
    if undecided:
        needed = None if point else samples_needed(estimate, bound, budget.limit, output.samples)
        seen = f"{output.samples} sample{'s' * (output.samples > 1)} can only show that it is {side} {bound:.6g}: "
        seen += f"about {needed} would decide" if needed else "it is at the limit, where no number of samples decides"
        alone = "one sample says nothing of others: ten or more have an interval"
        what = f"{subject} {estimate.value:.6g}, {allowed}, but {alone if point else seen}"
    return Verdict(
        str(budget), output.name, bound, passed, what, budget.reason, estimate.value, budget.limit, undecided, needed
    )


def samples_needed(estimate: Estimate, bound: float, limit: float, n: int) -> int | None:
    """Samples at which the bound would reach the limit, were the value to stay as it is.

    A rate p keeps a limit L as soon as z^2 L (1 - L) / (p - L)^2 observations stand behind it: Wilson's interval holds
    the rates that the score test does not refuse. Each of the n samples is worth `effective` / n of these. All else
    narrows with the square root: n ((value - bound) / (value - limit))^2.

    Returns:
        The number, or None where no number does: the value is at the limit, or has no finite bound.
    """
    gap = estimate.value - limit
    if gap == 0 or not math.isfinite(gap) or not math.isfinite(bound):
        return None
    if estimate.effective:
        return math.ceil(NORMAL**2 * limit * (1 - limit) / gap**2 * n / estimate.effective)
    return max(n + 1, math.ceil(n * ((estimate.value - bound) / gap) ** 2))
