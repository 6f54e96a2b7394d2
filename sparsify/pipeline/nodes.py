"""From what passes said, in order, to one row a node: what became of it and why."""

from __future__ import annotations

from typing import Any

from sparsify.pipeline.run import PipelineReport
from sparsify.rewrite import Change, Event, Refusal

LEFT = "left"
_FACTS = ("shape", "format", "sparsity", "pattern", "rows", "dense_ms", "rewritten_ms")
# They say nothing about a linear layer's fate.
_HOUSEKEEPING = {"cleanup", "stamp"}
# What they do is a means: a node that only they touched has not become a faster one.
_PREPARING = {"prune"}
# They look, or write in another way what a later pass writes back: no decision about a node.
_UNDECIDED = {"detect", "conv-matmul"}
# It changes neither what a node computes nor how fast: worth telling, and no decision.
_EXACT = {"smooth"}
# They add to what another pass did, and have nothing to say about why one did nothing.
_REFINING = {"shrink", "settle-layout", "fuse-epilogue", "share-quantization"}


def rows(report: PipelineReport) -> list[dict[str, Any]]:
    """One row for each node that a pass spoke about, in the order in which they were first met.

    `decision` is the pass that the node owes its form to, or `left`. `reason` says what was done or, for a node
    that was left, why: what was measured or, if nothing was, what the last pass to look at it said. `refined` is
    what else was done to it.
    """
    found: dict[str, dict[str, Any]] = {}
    for step in report.steps:
        if step.name in _HOUSEKEEPING:
            continue
        events: tuple[Event, ...] = (*step.findings, *step.refusals, *step.changes)
        for event in events:
            if not event.node:
                continue  # about the model as a whole
            if isinstance(event, Refusal) and step.name in _REFINING and event.node not in found:
                continue  # nobody else had to do with that node
            row = found.setdefault(event.node, _blank(event.node))
            row.update({k: _plain(v) for k, v in event.facts.items() if k in _FACTS and v is not None})
            _decide(row, step.name, event)
    for row in found.values():
        if row["decision"] == LEFT:
            row["format"] = None  # it was tried, and is not how the weight is stored
    for name, sparsity in report.restored.items():
        row = found[name]
        row.update(decision=LEFT, sparsity=sparsity, reason=f"{row['reason']}; so its pruning was taken back")
    return list(found.values())


def gained(report: PipelineReport, table: list[dict[str, Any]]) -> bool:
    """Whether more than the model's tidiness changed."""
    touched = any(step.changes for step in report.steps if step.name not in _HOUSEKEEPING | _UNDECIDED)
    return touched and any(row["decision"] != LEFT for row in table)


def refusal_reason(table: list[dict[str, Any]]) -> str:
    """Why nothing was done, in one sentence."""
    layers = [row for row in table if row["shape"]]
    if not layers:
        nothing = "the model has no linear layer with a constant weight"
        return f"{nothing} of a kind that can be rewritten: {_commonest(table, 'products')}" if table else nothing
    if not any(row["decision"] == LEFT and row["reason"] for row in layers):
        return "no pass had anything to do"
    return f"no layer gains: {_commonest(layers, 'layers')}"


def _commonest(table: list[dict[str, Any]], things: str) -> str:
    """The reason that most of `table` were left for, and how many, where there are others."""
    reasons = [str(row["reason"]) for row in table if row["decision"] == LEFT and row["reason"]]
    commonest = max(dict.fromkeys(reasons), key=reasons.count)
    others = "" if len(set(reasons)) == 1 else f", for {reasons.count(commonest)} of {len(table)} {things}"
    return commonest + others


def _blank(name: str) -> dict[str, Any]:
    nothing: dict[str, Any] = dict.fromkeys(_FACTS)
    return {"name": name, "decision": LEFT, "reason": "", "refined": [], **nothing, "drift_share": None}


def _decide(row: dict[str, Any], name: str, event: Event) -> None:
    undecided = row["decision"] == LEFT or row["decision"] in _PREPARING
    if isinstance(event, Refusal) and undecided and _tells_more(row, name, event):
        row["reason"] = event.reason
    if not isinstance(event, Change) or name in _UNDECIDED:
        return
    if name in _EXACT or (name in _REFINING and not undecided):
        row["refined"].append(event.what)
        return
    row["decision"], row["reason"] = name, event.what


def _tells_more(row: dict[str, Any], name: str, event: Refusal) -> bool:
    """Whether this refusal says more than the one before: a measurement does, a pass that only refines does not."""
    measured = "rewritten_ms" in event.facts
    return not row["reason"] or (name not in _REFINING and (measured or row["rewritten_ms"] is None))


def _plain(value: Any) -> Any:
    """`value` as JSON takes it."""
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (bool, int, float, str)):
        return value
    return value.item() if hasattr(value, "item") else str(value)
