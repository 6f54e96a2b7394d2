"""The audit's result, and the verdict on it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sparsify.audit.attribution import Attribution, LayerDrift
from sparsify.audit.metrics import CONFIDENCE, Estimate
from sparsify.audit.persample import PerSample
from sparsify.budget import METRICS, Budget
from sparsify.errors import UsageError


@dataclass(frozen=True)
class OutputDrift:
    """Drift of one output.

    Attributes:
        name: of the output.
        samples: over which the metrics are taken.
        metrics: those that the output has; see `sparsify.audit.metrics`.
        exact: every element is equal.
        mismatches: elements that are NaN or infinite in one model and not, or otherwise, in the other.
        unseen_share: the share of all samples that may exceed `max_abs`, at 95 % confidence.
        per_sample: drift of each.
        kind: see `sparsify.audit.kinds`; None of what is not made of floats.
        flipped: samples in which a row's largest class changed; None of outputs that are not classes or tokens.
    """

    name: str
    samples: int
    metrics: Mapping[str, Estimate]
    exact: bool
    mismatches: int
    unseen_share: float
    per_sample: PerSample
    kind: str | None = None
    flipped: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON carries it; a value that is not finite is null, and `exact` or `mismatches` say which."""
        return {
            "kind": self.kind,
            "flipped": self.flipped,
            "samples": self.samples,
            "exact": self.exact,
            "mismatches": self.mismatches,
            "unseen_share": self.unseen_share,
            "metrics": {
                name: {"value": _finite(e.value), "low": _finite(e.low), "high": _finite(e.high)}
                for name, e in self.metrics.items()
            },
            "per_sample": self.per_sample.to_dict(),
        }


@dataclass(frozen=True)
class Verdict:
    """Whether one output keeps one demand.

    Attributes:
        demand: the budget as text, or `finite` for the demand that is always made.
        output: that it is about.
        bound: the bound of the interval that speaks against the candidate.
        passed: whether the bound is inside.
        what: one sentence for people.
        reason: why it is demanded, where the budget says so.
        value, limit: the metric over the samples, and the worst that is allowed; None of `finite`.
    """

    demand: str
    output: str
    bound: float
    passed: bool
    what: str
    reason: str = ""
    value: float | None = None
    limit: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON carries it; a figure that is not finite is null."""
        return {
            "budget": self.demand,
            "output": self.output,
            "value": None if self.value is None else _finite(self.value),
            "limit": None if self.limit is None else _finite(self.limit),
            "bound": _finite(self.bound),
            "passed": self.passed,
            "what": self.what,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class DriftReport:
    """What an audit found. True when everything is inside the budget.

    Attributes:
        outputs: by name.
        verdicts: one for each budget and output that it is about, and for each output that is not finite as it was.
        attribution: where the drift arises; None unless asked for.
        notes: what a reader must know to judge the numbers.
        seed, threads: of the bootstrap and of the sessions.
    """

    outputs: Mapping[str, OutputDrift]
    verdicts: tuple[Verdict, ...]
    attribution: Attribution | None
    notes: tuple[str, ...]
    seed: int
    threads: int | None

    @property
    def layers(self) -> tuple[LayerDrift, ...]:
        """Drift of each layer, in graph order; empty unless asked for."""
        return self.attribution.rows if self.attribution else ()

    def __bool__(self) -> bool:
        return all(v.passed for v in self.verdicts)

    def to_dict(self) -> dict[str, Any]:
        """As JSON carries it. A value that is not finite is null."""
        return {
            "passed": bool(self),
            "outputs": {name: o.to_dict() for name, o in self.outputs.items()},
            "verdicts": [v.to_dict() for v in self.verdicts],
            "layers": [row.to_dict() for row in self.layers],
            "attribution": self.attribution.to_dict() if self.attribution else None,
            "notes": list(self.notes),
            "seed": self.seed,
            "threads": self.threads,
            "confidence": CONFIDENCE,
        }


def judge(outputs: Mapping[str, OutputDrift], budgets: Iterable[Budget]) -> tuple[Verdict, ...]:
    """Verdicts on `outputs`, each by the bound that speaks against the candidate.

    Raises:
        UsageError: a budget for an output that is not there, or for a metric that no such output has.
    """
    verdicts = [
        Verdict("finite", o.name, float(o.mismatches), False, _NOT_FINITE.format(o.name, o.mismatches))
        for o in outputs.values()
        if o.mismatches
    ]
    for budget in budgets:
        verdicts += [_verdict(budget, o) for o in _about(budget, outputs)]
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


def _about(budget: Budget, outputs: Mapping[str, OutputDrift]) -> list[OutputDrift]:
    chosen = [o for o in outputs.values() if budget.output in (None, o.name)]
    found = [o for o in chosen if budget.metric in o.metrics]
    if not found:
        measured = sorted({m for o in chosen for m in o.metrics})
        hint = f"measured there: {', '.join(measured)}" if measured else "that output was skipped"
        if budget.metric == "top1_agreement" and budget.output is None:
            hint = f"name an output whose last axis are classes: `top1_agreement@OUTPUT>={budget.limit!r}`"
        raise UsageError(f"no output has `{budget.metric}`", where=f"budget `{budget}`", hint=hint)
    return found


def _verdict(budget: Budget, output: OutputDrift) -> Verdict:
    metric, estimate = METRICS[budget.metric], output.metrics[budget.metric]
    bound, side = (estimate.low, "at least") if metric.higher_is_better else (estimate.high, "at most")
    what = f"`{budget.metric}` of `{output.name}` is {side} {bound:.6g}, allowed {metric.sign} {budget.limit:g}"
    passed = budget.allows(bound)
    return Verdict(str(budget), output.name, bound, passed, what, budget.reason, estimate.value, budget.limit)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
