"""Which value of the base is which of the candidate: by names where these can be trusted, then by structure.

Names. Most tools keep the names of what they keep: a name that both models use for a float value of one shape is a
match. Not so after a re-export that numbers its values anew: names are trusted where most of those shared name values
of one operator, and never where they are bare numbers.

Structure, for what is left. Both graphs are put in one canonical order (depth first from the outputs, whose names are
the interface), in which models that differ in a few places differ in a few stretches. The pairs are the common
subsequence of largest total score (Needleman and Wunsch 1970, gaps free), where two values of one shape score for

    the same operator                           1
    the same name                               1
    a weight with the same elements             3
    sketches with relative distance r < 1/2     4 (1 - 2 r)

on one feed. A pair of it is kept when it has more to show than operator and shape: close sketches, a common weight,
the same name, or inputs that are pairs. A wrong pair would accuse an innocent node; a missing one only makes a group
larger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from sparsify.audit.attribution.sides import Side, operator_of, reads
from sparsify.audit.attribution.sketches import Floats, distances, fingerprints, sketches
from sparsify.data import Array

CLOSE = 0.3  # int8 moves a value by some 0.1; two unrelated values of equal norm are 1.4 apart
_CELLS = 2**26  # of the table of scores: 8 bytes each
_ANCHOR = 100.0


@dataclass(frozen=True)
class Matching:
    """Pairs of values.

    Attributes:
        partner: base value by candidate value, in the candidate's graph order.
        by_name: how many of them have one name.
        note: what a reader must know of it; empty when there is nothing.
    """

    partner: Mapping[str, str]
    by_name: int
    note: str = ""


def match(old: Side, new: Side, feed: Mapping[str, Array], limit: int) -> Matching:
    """Match the values of `new` with those of `old`. Taps hold at most `limit` bytes of values at a time."""
    named = _by_names(old, new)
    note = ""
    partner = dict(named)
    if len(partner) < min(len(old.values), len(new.values)):
        if len(old.values) * len(new.values) <= _CELLS:
            partner |= _by_structure(old, new, named, feed, limit)
        else:
            note = "the models are too large to be matched by structure: only values of the same name were compared"
    ordered = {value: partner[value] for value in new.values if value in partner}
    return Matching(ordered, sum(new == old for new, old in ordered.items()), note)


def _by_names(old: Side, new: Side) -> dict[str, str]:
    """Shared names of one shape, where names mean something."""
    outputs = {o.name for o in old.graph.output}
    shared = [v for v, facts in new.values.items() if v in old.values and old.values[v].shape == facts.shape]
    telling = [v for v in shared if not v.isdigit()]
    same = sum(operator_of(old.node(v)) == operator_of(new.node(v)) for v in telling)
    trusted = 2 * same >= len(telling)
    return {v: v for v in shared if v in outputs or (trusted and not v.isdigit())}


def _by_structure(
    old: Side, new: Side, known: Mapping[str, str], feed: Mapping[str, Array], limit: int
) -> dict[str, str]:
    rows, columns = _canonical(old), _canonical(new)
    scores, firm = _scores(old, new, rows, columns, feed, limit)
    row, column = {v: i for i, v in enumerate(rows)}, {v: i for i, v in enumerate(columns)}
    for candidate, base in known.items():
        scores[row[base], :] = scores[:, column[candidate]] = 0
        scores[row[base], column[candidate]] = _ANCHOR
    found: dict[str, str] = {}
    for i, j in _best_path(scores):
        base, candidate = rows[i], columns[j]
        if candidate not in known and (firm[i, j] or _inputs_are_pairs(old, new, base, candidate, {**known, **found})):
            found[candidate] = base
    return found


def _canonical(side: Side) -> list[str]:
    """The float values in depth-first order from the outputs, whatever order the file lists its nodes in."""
    found: dict[str, None] = {}
    done: set[int] = set()
    pending = [(o, False) for o in sorted((o.name for o in side.graph.output), reverse=True)]
    while pending:
        name, ready = pending.pop()
        if (index := side.producer.get(name)) is None:
            continue
        node = side.graph.node[index]
        if ready:
            found |= dict.fromkeys(o for o in node.output if o in side.values)
        elif index not in done:
            done.add(index)
            pending.append((name, True))
            pending.extend((read, False) for read in reversed(reads(node)))
    return list(found)


def _scores(
    old: Side, new: Side, rows: Sequence[str], columns: Sequence[str], feed: Mapping[str, Array], limit: int
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Scores [rows, columns], and which of the pairs need no further evidence."""
    far = distances(sketches(old, rows, feed, limit), sketches(new, columns, feed, limit))
    same_operator = _equal([operator_of(old.node(v)) for v in rows], [operator_of(new.node(v)) for v in columns])
    same_name = _equal(rows, columns)
    before, after = fingerprints(old), fingerprints(new)
    weights = [before[old.producer[v]] for v in rows], [after[new.producer[v]] for v in columns]
    same_weight = np.zeros(far.shape, bool)
    for i, mine in enumerate(weights[0]):
        if mine:
            same_weight[i] = [bool(mine & theirs) for theirs in weights[1]]
    scores = same_operator + same_name + 3.0 * same_weight + 4 * np.maximum(0, 1 - 2 * np.minimum(far, 1))
    scores *= _equal([old.values[v].shape for v in rows], [new.values[v].shape for v in columns])
    return scores, (far < CLOSE) | same_weight | (same_name & same_operator)


def _equal(rows: Sequence[object], columns: Sequence[object]) -> npt.NDArray[np.bool_]:
    numbers: dict[object, int] = {}
    ids = [np.array([numbers.setdefault(k, len(numbers)) for k in keys], np.int64) for keys in (rows, columns)]
    return np.equal.outer(ids[0], ids[1])


def _best_path(scores: Floats) -> list[tuple[int, int]]:
    """The pairs (i, j), both rising, of the largest sum of scores."""
    n, m = scores.shape
    best = np.zeros((n + 1, m + 1))
    for i in range(n):
        diagonal = best[i, :-1] + scores[i]
        best[i + 1, 1:] = np.maximum.accumulate(np.maximum(best[i, 1:], diagonal))
    found = []
    i, j = n, m
    while i and j:
        if best[i, j] == best[i - 1, j]:
            i -= 1
        elif best[i, j] == best[i, j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            found.append((i, j))
    return found[::-1]


def _inputs_are_pairs(old: Side, new: Side, base: str, candidate: str, partner: Mapping[str, str]) -> bool:
    """Whether two nodes of one operator read values that are pairs of each other, in whatever order."""
    before, after = old.node(base), new.node(candidate)
    if operator_of(before) != operator_of(after):
        return False
    theirs = sorted(str(n if n in new.inputs else partner.get(n)) for n in _live(new, after))
    taken = set(partner.values())
    mine = sorted(str(n if n in old.inputs or n in taken else None) for n in _live(old, before))
    return mine == theirs


def _live(side: Side, node: onnx.NodeProto) -> list[str]:
    return [n for n in reads(node) if n in side.values or n in side.inputs]
