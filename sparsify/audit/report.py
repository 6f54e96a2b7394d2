"""The audit's result, and the verdict on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparsify.audit.attribution import Attribution, LayerDrift
from sparsify.audit.metrics import CONFIDENCE, Estimate
from sparsify.audit.persample import PerSample
from sparsify.audit.truth import Truth


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
            "metrics": {name: figure.to_dict() for name, figure in self.metrics.items()},
            "per_sample": self.per_sample.to_dict(),
        }


@dataclass(frozen=True)
class Whole:
    """Metrics that are about all outputs together.

    Attributes:
        samples: over which they are taken.
        metrics: by name.
    """

    samples: int
    metrics: Mapping[str, Estimate]
    name: str = "all outputs"
    exact: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON carries it; a value that is not finite is null."""
        return {"samples": self.samples, "metrics": {name: figure.to_dict() for name, figure in self.metrics.items()}}


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
        undecided: the value is inside and the bound is not: there are too few samples to tell.
        n_needed: samples that would decide, about; None where it is decided, or no number of samples would.
    """

    demand: str
    output: str
    bound: float
    passed: bool
    what: str
    reason: str = ""
    value: float | None = None
    limit: float | None = None
    undecided: bool = False
    n_needed: int | None = None

    @property
    def state(self) -> str:
        """`passed`, `failed` or `undecided`."""
        return "passed" if self.passed else "undecided" if self.undecided else "failed"

    def to_dict(self) -> dict[str, Any]:
        """As JSON carries it; a figure that is not finite is null."""
        return {
            "budget": self.demand,
            "output": self.output,
            "value": None if self.value is None else _finite(self.value),
            "limit": None if self.limit is None else _finite(self.limit),
            "bound": _finite(self.bound),
            "passed": self.passed,
            "state": self.state,
            "n_needed": self.n_needed,
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
        whole: metrics that somebody brought, which are about all outputs together; None without any.
        truths: both models against labels; empty without them.
        notes: what a reader must know to judge the numbers.
        seed, threads: of the bootstrap and of the sessions.
        saved: the worst samples that were written, as `sparsify.audit.worst.Saved`.
    """

    outputs: Mapping[str, OutputDrift]
    verdicts: tuple[Verdict, ...]
    attribution: Attribution | None
    notes: tuple[str, ...]
    seed: int
    threads: int | None
    whole: Whole | None = None
    truths: tuple[Truth, ...] = ()
    saved: tuple[Any, ...] = ()

    @property
    def layers(self) -> tuple[LayerDrift, ...]:
        """Drift of each layer, in graph order; empty unless asked for."""
        return self.attribution.rows if self.attribution else ()

    @property
    def state(self) -> str:
        """`failed` if any verdict is, else `undecided` if any is, else `passed`."""
        states = {v.state for v in self.verdicts}
        return next((state for state in ("failed", "undecided") if state in states), "passed")

    def __bool__(self) -> bool:
        return self.state == "passed"

    def to_dict(self) -> dict[str, Any]:
        """As JSON carries it. A value that is not finite is null."""
        return {
            "passed": bool(self),
            "state": self.state,
            "outputs": {name: o.to_dict() for name, o in self.outputs.items()},
            "whole": self.whole.to_dict() if self.whole else None,
            "labels": [truth.to_dict() for truth in self.truths],
            "verdicts": [v.to_dict() for v in self.verdicts],
            "layers": [row.to_dict() for row in self.layers],
            "attribution": self.attribution.to_dict() if self.attribution else None,
            "notes": list(self.notes),
            "seed": self.seed,
            "threads": self.threads,
            "confidence": CONFIDENCE,
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
