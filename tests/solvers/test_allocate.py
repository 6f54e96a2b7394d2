"""Sharing a sparsity among layers: against all allocations, and against even ones."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsify.solvers.allocate import Curve, allocate

OPTIONS = (0.25, 0.5, 0.75)


@st.composite
def convex(draw: st.DrawFn) -> Curve:
    first, second, third = sorted(draw(st.lists(st.floats(1e-4, 1e-1), min_size=3, max_size=3)))
    return Curve(draw(st.integers(1, 9)), OPTIONS, (first, first + second, first + second + second + third))


def total(curves: list[Curve], chosen: tuple[float, ...] | list[float]) -> tuple[float, float]:
    """Average sparsity, and sum of drifts."""
    zeros = sum(c.weights * s for c, s in zip(curves, chosen, strict=True)) / sum(c.weights for c in curves)
    return zeros, sum(c.at(s) for c, s in zip(curves, chosen, strict=True))


@settings(deadline=None, max_examples=60)
@given(st.lists(convex(), min_size=1, max_size=4), st.floats(0.25, 0.75))
def test_no_other_allocation_as_sparse_drifts_less(curves: list[Curve], target: float) -> None:
    zeros, drift = total(curves, allocate(curves, OPTIONS, target))
    assert zeros >= target - 1e-6
    for other in itertools.product(OPTIONS, repeat=len(curves)):
        sparser, further = total(curves, other)
        assert sparser < zeros - 1e-6 or further >= drift * (1 - 1e-9)


def test_the_robust_layer_gives_more_than_the_fragile_one() -> None:
    fragile, robust = Curve(100, OPTIONS, (0.1, 0.2, 0.4)), Curve(100, OPTIONS, (0.001, 0.002, 0.004))
    assert allocate([fragile, robust], OPTIONS, 0.5) == [0.25, 0.75]


def test_a_limit_is_kept_and_used() -> None:
    curves = [Curve(10, OPTIONS, (0.01, 0.02, 0.05)), Curve(10, OPTIONS, (0.01, 0.03, 0.08))]
    chosen = allocate(curves, OPTIONS, 1.0, limit=0.06)
    assert chosen == [0.5, 0.5]
    assert total(curves, chosen)[1] <= 0.06


def test_a_curve_that_falls_counts_as_flat_and_zero_drift_is_no_trouble() -> None:
    assert Curve(1, OPTIONS, (0.0, 0.2, 0.1)).at(0.75) == pytest.approx(0.2)
    assert allocate([Curve(1, OPTIONS, (0.0, 0.0, 0.0))], OPTIONS, 0.75) == [0.75]


def test_options_outside_what_was_measured_are_not_taken() -> None:
    with pytest.raises(ValueError, match="no option"):
        allocate([Curve(1, (0.4, 0.6), (0.1, 0.2))], [0.7], 0.5)
    assert allocate([Curve(1, (0.4, 0.6), (0.1, 0.2))], [0.5, 0.7], 0.5) == [0.5]
