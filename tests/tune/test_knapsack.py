"""Options for layers, against trying them all."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from sparsify.rewrite import Choice
from sparsify.tune.knapsack import Option, frontier, solve

WHOLE = st.integers(1, 20)


@st.composite
def problems(draw: st.DrawFn) -> list[list[Option]]:
    layers = draw(st.integers(0, 4))
    found = []
    for _ in range(layers):
        dense = Option(Choice(), draw(WHOLE), 0)
        others = draw(st.lists(st.tuples(WHOLE, WHOLE), max_size=3))
        found.append([dense, *(Option(Choice("sparse-int8"), cost, drift) for cost, drift in others)])
    return found


def best(options: list[list[Option]], limit: float) -> float:
    ways = itertools.product(*options)
    return min(sum(o.cost for o in way) for way in ways if sum(o.drift for o in way) <= limit)


@given(problems(), st.integers(0, 60))
def test_it_keeps_the_limit_and_misses_the_optimum_by_less_than_one_step(
    options: list[list[Option]], limit: int
) -> None:
    taken = solve(options, limit)
    assert all(option in of_layer for option, of_layer in zip(taken, options, strict=True))
    assert sum(o.drift for o in taken) <= limit
    saving = max((of_layer[0].cost - o.cost for of_layer in options for o in of_layer), default=0)
    assert best(options, limit) <= sum(o.cost for o in taken) <= best(options, limit) + saving


@given(problems())
def test_without_a_limit_every_layer_gets_its_fastest_option(options: list[list[Option]]) -> None:
    assert sum(o.cost for o in solve(options, 1e9)) == sum(min(o.cost for o in of_layer) for of_layer in options)


@given(problems())
def test_at_the_limits_of_the_frontier_time_falls(options: list[list[Option]]) -> None:
    limits = [0, *frontier(options)]
    assert limits == sorted(limits)
    costs = [sum(o.cost for o in solve(options, limit)) for limit in limits]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == sum(min(o.cost for o in of_layer) for of_layer in options)
