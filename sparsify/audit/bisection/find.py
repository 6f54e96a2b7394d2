"""Bisection of two models on data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx
from onnx.external_data_helper import load_external_data_for_model

from sparsify import runtime
from sparsify.audit.attribution.layers import MEMORY, measured, side_limit
from sparsify.audit.attribution.matching import match
from sparsify.audit.attribution.sides import Side
from sparsify.audit.bisection.hybrids import Hybrids
from sparsify.audit.bisection.search import culprits
from sparsify.audit.bisection.units import Unit, pairs, units
from sparsify.audit.compare import audit
from sparsify.audit.report import DriftReport
from sparsify.budget import Budget
from sparsify.data import Feed
from sparsify.errors import InputError
from sparsify.runtime import Source
from sparsify.runtime.source import INLINE_BYTES, opened, size_bytes

_ORDER_FEEDS = 4  # that suspicion is measured on; it decides how many audits are needed, not what they find

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Guilty:
    """A set of changes that breaks the budget in an otherwise unchanged base.

    Attributes:
        units: the changes; none of them can be left out.
        drift: of the base with them.
    """

    units: tuple[Unit, ...]
    drift: DriftReport

    def to_dict(self) -> dict[str, Any]:
        """As JSON carries it."""
        return {
            "changes": [{"nodes": list(u.nodes), "base_nodes": list(u.base_nodes)} for u in self.units],
            "verdicts": [verdict.to_dict() for verdict in self.drift.verdicts],
        }


@dataclass(frozen=True)
class Bisection:
    """What a bisection found. True when the candidate is inside the budget.

    Attributes:
        drift: of the candidate.
        changes: how many changes there are between the two models.
        guilty: sets that each break the budget alone; none share a change.
        rest: drift of the candidate without them, which is inside the budget; None when nothing else changed.
        audits: models that were run on all data, the candidate among them.
        notes: what a reader must know.
    """

    drift: DriftReport
    changes: int
    guilty: tuple[Guilty, ...]
    rest: DriftReport | None
    audits: int
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.drift)

    def to_dict(self) -> dict[str, Any]:
        """As JSON carries it, without the candidate's drift."""
        return {
            "differences": self.changes,
            "guilty": [one.to_dict() for one in self.guilty],
            "rest": None if self.rest is None else [verdict.to_dict() for verdict in self.rest.verdicts],
            "audits": self.audits,
        }


def bisect(
    base: Source,
    candidate: Source,
    feeds: Sequence[Feed],
    budgets: Sequence[Budget],
    *,
    memory: int = MEMORY,
    seed: int = 0,
    threads: int | None = None,
    native: bool = True,
    progress: Progress | None = None,
) -> Bisection:
    """Find the smallest sets of changes that break the budget. Arguments and errors as of `audit`.

    Args:
        base, candidate: models of the same interface; both are held in memory.
        feeds: data.
        budgets: at least one.
        memory, seed, threads, native, progress: as of `audit`.

    Raises:
        InputError: as of `audit`; or the two cannot be mixed, being of different operator set versions.
    """
    runs: dict[frozenset[int], DriftReport] = {}

    def measure(model: Source, key: frozenset[int]) -> bool:
        if progress is not None:
            progress("changes", len(runs), len(runs) + 1)
        runs[key] = audit(base, model, feeds, budgets=budgets, seed=seed, threads=threads, native=native)
        return not runs[key]

    whole = frozenset([-1])
    if not measure(candidate, whole):
        return Bisection(runs[whole], 0, (), None, 1)
    with _in_memory(base, threads, native) as before, _in_memory(candidate, threads, native) as after:
        largest = max(feeds, key=lambda feed: sum(array.nbytes for array in feed.values()))
        old, new = Side(before, largest), Side(after, largest)
        matching = match(old, new, largest, side_limit(memory))
        rows = measured(old, new, matching, feeds[:_ORDER_FEEDS], side_limit(memory), None)
        partner = pairs(old, new, matching.partner)
        found = units(old, new, partner)
        hybrids = Hybrids(old, new, partner)
        own = {row.value: row.own for row in rows}
        order = sorted(range(len(found)), key=lambda i: -max(own.get(v, 0.0) for v in found[i].values))

        def fails(chosen: frozenset[int]) -> bool:
            return measure(hybrids.model({v for i in chosen for v in found[i].values}), chosen)

        sets = culprits(order, fails)
    guilty = tuple(Guilty(tuple(found[i] for i in one), runs[frozenset(one)]) for one in sets)
    rest = runs.get(frozenset(order).difference(*sets)) if sets else None
    notes = [matching.note] if matching.note else []
    if not guilty:
        notes.append("the candidate breaks the budget, but not what can be exchanged between the two models")
    return Bisection(runs[whole], len(found), guilty, rest, len(runs), tuple(notes))


@contextmanager
def _in_memory(model: Source, threads: int | None, native: bool) -> Iterator[runtime.Probe]:
    """The model with all weights in its message: those of two models cannot lie in one folder."""
    if size_bytes(model) > INLINE_BYTES:
        raise InputError(f"more than {INLINE_BYTES:,} bytes of weights cannot be mixed in memory", where="bisect")
    with opened(model) as skeleton:
        proto = onnx.ModelProto()
        proto.CopyFrom(skeleton.proto)
        if skeleton.folder is not None:
            load_external_data_for_model(proto, str(skeleton.folder))
    with runtime.probe(proto, threads=threads, native=native) as probe:
        yield probe
