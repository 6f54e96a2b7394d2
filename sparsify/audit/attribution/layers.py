"""The rows of an attribution. See the package for what they mean.

Memory: values are taken in chunks, so that one chunk's values of one feed exist at a time. Each chunk runs the base,
the candidate and the cut-out nodes once over the data. Where a single value of a feed is larger than a chunk, the feed
is run in parts along its batch dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsify import data, runtime
from sparsify.audit import metrics
from sparsify.audit.attribution.cuts import cut
from sparsify.audit.attribution.effects import effect_of
from sparsify.audit.attribution.matching import Matching, match
from sparsify.audit.attribution.sides import Side, name_of, operator_of
from sparsify.audit.attribution.sketches import chunks
from sparsify.audit.attribution.squares import squares
from sparsify.data import Feed
from sparsify.runtime import Source

MEMORY = 2**30
# A value exists in the base, in the candidate, alone, and as an input of what runs alone; onnxruntime's own buffers are
# alive beside the arrays that they are copied to.
_COPIES = 8
THRESHOLD = 0.1  # relative L2: 20 dB
_SUSPECTS = 10  # rows whose effect on the outputs is measured: each costs three sessions


@dataclass(frozen=True)
class LayerDrift:
    """Drift at one node of the candidate.

    Attributes:
        node: its name, or `OP -> VALUE` when it has none.
        op: its type, with the domain where that is not ONNX's own.
        value: the output that was compared.
        own, accumulated, share, effect: see the package; `effect` is None where it was not measured.
        base: the value of the base that it was compared with.
        base_nodes: names of the nodes of the base that the row stands for.
        nodes: names of the candidate's that it stands for, this one among them.
    """

    node: str
    op: str
    value: str
    own: float
    accumulated: float
    share: float = 0.0
    effect: float | None = None
    base: str = ""
    base_nodes: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON carries it; what is not finite is null, as is an effect that was not measured."""
        figures = {"own": self.own, "accumulated": self.accumulated, "share": self.share, "effect": self.effect}
        return {
            "node": self.node,
            "op": self.op,
            "value": self.value,
            **{name: v if v is not None and math.isfinite(v) else None for name, v in figures.items()},
            "base": self.base,
            "base_nodes": list(self.base_nodes),
            "nodes": list(self.nodes),
        }


@dataclass(frozen=True)
class Attribution:
    """Where the drift arises.

    Attributes:
        rows: in the candidate's graph order.
        threshold: of `accumulated`.
        matched: values that were compared; by_name: how many of them have one name in both models.
        values: float values of base and candidate that could have been.
        notes: what a reader must know.
    """

    rows: tuple[LayerDrift, ...]
    threshold: float
    matched: int
    by_name: int
    values: tuple[int, int]
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> LayerDrift | None:
        """The first row, in graph order, whose accumulated drift is over the threshold."""
        return next((row for row in self.rows if row.accumulated > self.threshold), None)

    @property
    def suspects(self) -> tuple[LayerDrift, ...]:
        """The rows whose effect was measured, worst first."""
        measured = [row for row in self.rows if row.effect is not None]
        return tuple(sorted(measured, key=lambda row: (-(row.effect or 0.0), -row.own)))

    def to_dict(self) -> dict[str, Any]:
        """As JSON carries it, without the rows."""
        return {
            "threshold": self.threshold,
            "first": self.first.node if self.first else None,
            "suspects": [row.value for row in self.suspects],
            "matched": self.matched,
            "by_name": self.by_name,
            "values": list(self.values),
        }


def drift_of_layers(
    base: Source,
    candidate: Source,
    feeds: Sequence[Feed],
    threads: int | None,
    native: bool,
    progress: Callable[[str, int, int], None] | None = None,
    *,
    memory: int = MEMORY,
    threshold: float = THRESHOLD,
) -> Attribution:
    """Attribute drift on feeds that were checked.

    Args:
        base, candidate, threads, native, progress: as in `audit`.
        feeds: at least one.
        memory: bytes that intermediate values may take at a time; the models' weights come on top.
        threshold: of accumulated drift, for `Attribution.first`.
    """
    limit = side_limit(memory)
    with (
        runtime.probe(base, threads=threads, native=native, deterministic=True) as before,
        runtime.probe(candidate, threads=threads, native=native, deterministic=True) as after,
    ):
        largest = max(feeds, key=lambda feed: sum(array.nbytes for array in feed.values()))
        old, new = Side(before, largest), Side(after, largest)
        rows = _rows_at_once(old, new, largest, limit)
        parts = [part for feed in feeds for part in _parts(feed, rows)]
        notes = [f"layers were measured in batches of {rows}, so that their values fit the memory"] if rows else []
        if rows:
            largest = max(parts, key=lambda feed: sum(array.nbytes for array in feed.values()))
            old, new = Side(before, largest), Side(after, largest)
        matching = match(old, new, largest, limit)
        found = measured(old, new, matching, parts, limit, progress)
        found = _with_effects(old, new, matching, found, parts, progress)
    notes += [matching.note] if matching.note else []
    if not found:
        notes.append("no value of the candidate could be matched with one of the base: there are no layers to show")
    sizes = (len(old.values), len(new.values))
    return Attribution(tuple(found), threshold, len(matching.partner), matching.by_name, sizes, tuple(notes))


def _rows_at_once(old: Side, new: Side, feed: Feed, limit: int) -> int | None:
    """How many samples may run together; None when all may, or the batch cannot be divided."""
    largest = max((value.nbytes for side in (old, new) for value in side.values.values()), default=0)
    rows = data.rows(feed) if largest > limit else None
    if rows is None or rows < 2 or old.fixed_batch or new.fixed_batch:
        return None
    return max(1, rows * limit // largest)


def _parts(feed: Feed, rows: int | None) -> Iterator[Feed]:
    count = data.rows(feed) if rows else None
    if rows is None or count is None or count <= rows:
        yield feed
        return
    for start in range(0, count, rows):
        yield {name: array[start : start + rows] for name, array in feed.items()}


def side_limit(memory: int) -> int:
    """Bytes of the values of one side that fit into `memory` with all their copies."""
    return max(1, memory // _COPIES)


def measured(
    old: Side,
    new: Side,
    matching: Matching,
    feeds: Sequence[Feed],
    limit: int,
    progress: Callable[[str, int, int], None] | None,
) -> list[LayerDrift]:
    """A row for each value of the candidate that has a partner, without effects; `limit` as of `side_limit`."""
    chosen = _first_outputs(new, matching)
    planned = list(chunks(chosen, new.values, limit))
    found: list[LayerDrift] = []
    for index, chunk in enumerate(planned):
        found += _drift(old, new, chunk, matching.partner, feeds)
        if progress is not None:
            progress("layers", index + 1, len(planned))
    added = sum(row.own**2 for row in found if math.isfinite(row.own))
    infinite = sum(math.isinf(row.own) for row in found)
    if infinite:
        return [replace(row, share=1 / infinite if math.isinf(row.own) else 0.0) for row in found]
    return [replace(row, share=row.own**2 / added if added else 0.0) for row in found]


def _first_outputs(new: Side, matching: Matching) -> list[str]:
    """The value of each row: of a node's outputs the first that has a partner."""
    found: dict[int, str] = {}
    for value in matching.partner:
        found.setdefault(new.producer[value], value)
    return list(found.values())


def _drift(
    old: Side, new: Side, chunk: Sequence[str], partner: Mapping[str, str], feeds: Sequence[Feed]
) -> Iterator[LayerDrift]:
    shared = {value: new.values[value] for value in partner}
    alone = cut(new, chunk, shared)
    wanted = {partner[v] for v in (*chunk, *alone.reads)}
    before = old.probe.session([v for v in old.probe.values if v in wanted])
    after = new.probe.session([v for v in new.probe.values if v in chunk])
    totals = {v: np.zeros(3) for v in chunk}  # |b|^2, |d|^2 alone, |d|^2 in the whole candidate
    for feed in feeds:
        base, whole = runtime.run(before, feed), runtime.run(after, feed)
        own = alone.run(feed, {v: base[partner[v]].astype(shared[v].dtype, copy=False) for v in alone.reads})
        for v, total in totals.items():
            reference = base[partner[v]]
            power, error = squares(reference, own.pop(v))
            total += (power, error, squares(reference, whole.pop(v))[1])
    for v, (power, own_error, error) in totals.items():
        node = new.node(v)
        base_nodes, _ = old.behind([partner[v]], set(partner.values()) - {partner[v]})
        nodes, _ = new.behind([v], set(partner) - {v})
        yield LayerDrift(
            name_of(node, v),
            operator_of(node),
            v,
            own=float(metrics.relative_l2(power, own_error)),
            accumulated=float(metrics.relative_l2(power, error)),
            base=partner[v],
            base_nodes=tuple(_names(old, base_nodes)),
            nodes=tuple(_names(new, nodes)),
        )


def _names(side: Side, indices: Sequence[int]) -> Iterator[str]:
    for node in (side.graph.node[index] for index in indices):
        if node.op_type == "Constant":
            continue
        yield name_of(node, next(o for o in node.output if o))


def _with_effects(
    old: Side,
    new: Side,
    matching: Matching,
    rows: list[LayerDrift],
    feeds: Sequence[Feed],
    progress: Callable[[str, int, int], None] | None,
) -> list[LayerDrift]:
    suspects = sorted((row for row in rows if row.own > 0), key=lambda row: -row.own)[:_SUSPECTS]
    effects: dict[str, float] = {}
    for index, row in enumerate(suspects):
        effects[row.value] = effect_of(old, new, row.value, matching.partner, feeds)
        if progress is not None:
            progress("suspects", index + 1, len(suspects))
    return [replace(row, effect=effects.get(row.value)) for row in rows]
