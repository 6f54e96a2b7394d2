"""Bisection as a program and as the command line call it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsify.api import facts, intake
from sparsify.api.drift import budgets as budgets_of
from sparsify.api.samples import DataSource, read
from sparsify.audit.bisection import Bisection
from sparsify.audit.bisection import bisect as find
from sparsify.errors import UsageError
from sparsify.modelio import Source
from sparsify.pipeline.run import Progress


def bisect(
    base: Source,
    candidate: Source,
    data: DataSource,
    budget: str | Sequence[str],
    *,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Bisection:
    """The smallest sets of changed nodes that break a budget; true when the candidate is inside it.

    The two models may differ in weights and operators, and in names: nodes are matched as `audit` matches them. What
    was fused, split or replaced goes together.

    Args:
        base: the model that is right.
        candidate: made from it, by whatever tool.
        data: as in `optimize`.
        budget: what the drift must keep to, such as "cosine>=0.99".
        seed: of the bootstrap.
        threads: onnxruntime's; its own choice if not given.
        progress: called with (audits done, audits known of, what is under way).

    Raises:
        UsageError: no budget, or one that makes no sense.
        InputError: models or data that cannot be used, or that do not belong together.
    """
    budgets = budgets_of(budget)
    if not budgets:
        raise UsageError("there is nothing to be broken without a budget", where="--budget", hint="cosine>=0.99, say")
    right = intake.load(base)
    return find(
        right,
        intake.load(candidate),
        read(data, right),
        budgets,
        seed=seed,
        threads=threads,
        progress=None if progress is None else lambda _, done, total: progress(done, total, "bisect"),
    )


def bisection_of(
    base: str | Path, candidate: str | Path, data: DataSource, budget: str | Sequence[str], **options: Any
) -> dict[str, Any]:
    """What `sparsify bisect` reports; arguments as of `bisect`."""
    samples = read(data, intake.load(base))
    found = bisect(base, candidate, samples, budget, **options)
    drift = facts.drift(found.drift)
    return {
        "schema": facts.SCHEMA,
        "kind": "bisect",
        "title": "Sparsify: bisect",
        "summary": _summary(found, drift),
        "accepted": bool(found),
        **facts.place(),
        "base": facts.model(base),
        "candidate": facts.model(candidate),
        "data": facts.data(samples, data),
        "drift": {**drift, "notes": [*drift["notes"], *found.notes]},
        **facts.finite(found.to_dict()),
    }


def _summary(found: Bisection, drift: dict[str, Any]) -> str:
    """What was found, in one sentence."""
    counted = _counted(found.audits, "audit")
    if found:
        return f"{facts.verdict(drift)} ({counted})"
    of = f"of {_counted(found.changes, 'change')} ({counted})"
    if not found.guilty:
        return f"{facts.verdict(drift)}; it comes from none {of}"
    names = ", ".join(f"`{unit.nodes[-1]}`" for unit in found.guilty[0].units[:3])
    first = found.guilty[0].units
    more = f" and {len(first) - 3} more" if len(first) > 3 else ""
    alone = f"{names} alone breaks" if len(first) == 1 else f"{names}{more} together break"
    others = f", and {len(found.guilty) - 1} other sets do" if len(found.guilty) > 1 else ""
    rest = "; without what is guilty the rest keeps it" if found.rest is not None else ""
    return f"{alone} the budget, {of}{others}{rest}"


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"
