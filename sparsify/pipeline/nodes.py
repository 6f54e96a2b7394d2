"""From what passes said, in order, to one row a node: what became of it and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sparsify.pipeline.run import Step
from sparsify.rewrite import Change, Refusal

LEFT = "left"
_FACTS = ("shape", "format", "sparsity", "rows", "dense_ms", "rewritten_ms")
# They say nothing about a linear layer's fate.
_HOUSEKEEPING = {"cleanup", "stamp"}
# What they do is a means: a node that only they touched has not become a faster one.
_PREPARING = {"detect", "prune"}


def rows(steps: Iterable[Step]) -> list[dict[str, Any]]:
    """One row for each node that a pass spoke about, in the order in which they were first met.

    `decision` is the last pass that changed the node, or `left`. `reason` says what that pass did or, for a node
    that was left, why the last pass to look at it refused.
    """
    found: dict[str, dict[str, Any]] = {}
    for step in steps:
        if step.name in _HOUSEKEEPING:
            continue
        for event in (*step.refusals, *step.changes):
            row = found.setdefault(event.node, _blank(event.node))
            row.update({k: _plain(v) for k, v in event.facts.items() if k in _FACTS and v is not None})
            _decide(row, step.name, event)
    return list(found.values())


def gained(steps: Iterable[Step]) -> bool:
    """Whether a pass changed more than the model's tidiness."""
    return any(step.changes for step in steps if step.name not in _HOUSEKEEPING | {"detect"})


def refusal_reason(table: list[dict[str, Any]]) -> str:
    """Why nothing was done, in one sentence."""
    if not table:
        return "the model has no linear layer with a constant weight"
    reasons = [row["reason"] for row in table if row["decision"] == LEFT and row["reason"]]
    if not reasons:
        return "no pass had anything to do"
    commonest = max(dict.fromkeys(reasons), key=reasons.count)
    others = "" if len(set(reasons)) == 1 else f", for {reasons.count(commonest)} of {len(table)} layers"
    return f"no layer gains: {commonest}{others}"


def _blank(name: str) -> dict[str, Any]:
    nothing: dict[str, Any] = dict.fromkeys(_FACTS)
    return {"name": name, "decision": LEFT, "reason": "", **nothing, "drift_share": None}


def _decide(row: dict[str, Any], name: str, event: Change | Refusal) -> None:
    if isinstance(event, Refusal):
        if row["decision"] == LEFT or row["decision"] in _PREPARING:
            row["reason"] = event.reason
        return
    if name == "detect":
        return
    row["decision"], row["reason"] = name, event.what


def _plain(value: Any) -> Any:
    """`value` as JSON takes it."""
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (bool, int, float, str)):
        return value
    return value.item() if hasattr(value, "item") else str(value)
