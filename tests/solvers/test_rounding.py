"""Rounding what a mask keeps: on the grid, found again, and better than rounding to nearest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsify.patterns import Pattern
from sparsify.solvers import admm
from sparsify.solvers.moments import relative_error
from sparsify.solvers.quantize import quantize
from sparsify.solvers.rounding import round_kept
from tests.solvers.inputs import correlated


@settings(deadline=None, max_examples=40)
@given(
    k=st.integers(1, 140),
    n=st.integers(1, 9),
    levels=st.integers(1, 127),
    seed=st.integers(0, 99),
    exponent=st.integers(-30, 30),
)
def test_quantising_what_was_rounded_finds_the_same_bits(k: int, n: int, levels: int, seed: int, exponent: int):
    w, _, h = correlated(3 * k, k, n, seed)
    w *= np.float32(2.0) ** exponent
    mask = np.random.default_rng(seed).random(w.shape) < 0.5
    mask[:, 0] = False  # a column of which nothing is left
    rounded = round_kept(w, np.where(mask, w, 0).astype(np.float32), mask, h, levels)
    assert not rounded[~mask].any()
    q, scale = quantize(rounded, levels)
    assert (q * scale == rounded).all()


@pytest.mark.parametrize("levels", [127, 7])
def test_error_feedback_beats_rounding_to_nearest(levels: int):
    w, _, h = correlated(1000, 128, 32)
    mask, kept = admm.prune(w, h, Pattern.parse("32:64"))
    q, scale = quantize(kept, levels)
    nearest = relative_error(w, q * scale, h)
    assert relative_error(w, round_kept(w, kept, mask, h, levels), h) < nearest


@pytest.mark.parametrize("pattern", ["16:64", "2:4", "unstructured"])
def test_pruned_weights_are_whole_numbers_of_a_scale(pattern: str):
    w, x, _ = correlated(400, 128, 8)
    x[:, 3] = 0  # a dead input
    mask, pruned = admm.prune(w, x.T @ x, Pattern.parse(pattern), 0.75, levels=127)
    q, scale = quantize(pruned)
    assert (q * scale == pruned).all()
    assert not pruned[~mask].any()
    assert not pruned[3].any()
