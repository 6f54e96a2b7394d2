"""Delta debugging: few tests find a set of changes that fails, and of which no member can be left out.

Changes come in order of suspicion. The shortest beginning of the list that fails is found by doubling, then by
halving; its last member is needed. With that kept, the same is done for what stands before it, until what was kept
fails by itself. A single guilty change at place r of n takes 1 + 2 log2 r tests: one where suspicion is right, never
more than 1 + 2 log2 n. At the end each member is left out once: failing need not be monotone, since errors may cancel.

Source: Zeller, Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002 (the aim and the term
1-minimal); Junker, "QuickXplain", 2004 (keeping what the last step showed to be needed).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Fails = Callable[[frozenset[int]], bool]


def culprits(items: Sequence[int], fails: Fails) -> list[tuple[int, ...]]:
    """Disjoint sets of `items` that each fail alone; without them the rest does not fail. Empty if all together do not.

    Args:
        items: most suspicious first.
        fails: the test of a set; the empty set must not fail. It is asked once for each set.
    """
    asked: dict[frozenset[int], bool] = {}

    def ask(chosen: Sequence[int]) -> bool:
        key = frozenset(chosen)
        if key not in asked:
            asked[key] = bool(key) and fails(key)
        return asked[key]

    found: list[tuple[int, ...]] = []
    rest = list(items)
    while ask(rest):
        found.append(_smallest(rest, ask))
        rest = [item for item in rest if item not in found[-1]]
    return found


def _smallest(items: Sequence[int], ask: Callable[[Sequence[int]], bool]) -> tuple[int, ...]:
    """A 1-minimal part of `items`, which fail together."""
    kept: list[int] = []
    before = list(items)
    while not ask(kept):
        end = _shortest(before, kept, ask)
        kept.append(before[end - 1])
        before = before[: end - 1]
    for item in list(kept):
        without = [other for other in kept if other != item]
        if ask(without):
            kept = without
    return tuple(kept)


def _shortest(before: Sequence[int], kept: Sequence[int], ask: Callable[[Sequence[int]], bool]) -> int:
    """How many of `before` fail together with `kept`; all of them do, none does not."""
    low, high = 0, len(before)
    step = 1
    while step < high and not ask([*kept, *before[:step]]):
        low, step = step, 2 * step
    high = min(step, high)
    while high - low > 1:
        middle = (low + high) // 2
        if ask([*kept, *before[:middle]]):
            high = middle
        else:
            low = middle
    return high
