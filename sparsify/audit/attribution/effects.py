"""What one row's own error does to the outputs of a base in which nothing else was changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparsify import runtime
from sparsify.audit import metrics
from sparsify.audit.attribution.cuts import cut, patched
from sparsify.audit.attribution.sides import Side
from sparsify.audit.attribution.squares import squares
from sparsify.data import Feed

FEEDS = 16  # of many, as many are enough to tell rows apart


def effect_of(old: Side, new: Side, value: str, partner: Mapping[str, str], feeds: Sequence[Feed]) -> float:
    """The largest drift of an output, with `value` of the candidate fed base's inputs in the place of the base's own.

    Takes `FEEDS` of the feeds, evenly spread.
    """
    target = partner[value]
    alone = cut(new, [value], {v: new.values[v] for v in partner})
    outputs = [o.name for o in old.graph.output if o.name in old.producer]
    wanted = {partner[v] for v in alone.reads} | {target, *outputs}
    before = old.probe.session([v for v in old.probe.values if v in wanted])
    changed = patched(old, target)
    totals = {name: _Total() for name in outputs}
    for feed in feeds[:: math.ceil(len(feeds) / FEEDS)]:
        base = runtime.run(before, feed)
        given = {v: base[partner[v]].astype(new.values[v].dtype, copy=False) for v in alone.reads}
        own = alone.run(feed, given)[value].astype(old.values[target].dtype, copy=False)
        found = {target: own} | ({} if changed is None else runtime.run(changed, {**feed, target: own}))
        for name, total in totals.items():
            total.add(base[name], found[name])
    return max((total.drift for total in totals.values()), default=0.0)


class _Total:
    """Drift of one output over the feeds so far."""

    def __init__(self) -> None:
        self._float = True
        self._sums = np.zeros(2)

    def add(self, base: Any, other: Any) -> None:
        if not isinstance(base, np.ndarray) or not isinstance(other, np.ndarray):
            return  # a sequence or a map has no norm
        self._float = metrics.is_float(base)
        if self._float:
            self._sums += squares(base, other)
        elif base.shape == other.shape:
            self._sums += (base.size, (base != other).sum())
        else:
            self._sums += (base.size, base.size)

    @property
    def drift(self) -> float:
        power, error = self._sums
        relative = float(metrics.relative_l2(power, error))
        return relative if self._float else relative**2
