"""Solvers on plain arrays: what they keep, what they minimise, and inputs that are not nice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsify.patterns import Pattern
from sparsify.solvers import admm, best, magnitude, moments, obs
from sparsify.solvers.factors import Factors
from sparsify.solvers.moments import normalized, relative_error
from sparsify.solvers.refit import refit
from tests.solvers.inputs import correlated

PATTERNS = ["32:64", "4:16", "2:4", "unstructured", "per-column", "4x1"]


@pytest.mark.parametrize("pattern", [Pattern.parse(p) for p in PATTERNS], ids=str)
@pytest.mark.parametrize("solver", [admm.prune, obs.prune], ids=["admm", "obs"])
@settings(deadline=None, max_examples=8)
@given(k=st.sampled_from([64, 70, 128, 200]), n=st.integers(1, 20), tokens=st.sampled_from([0, 3, 50, 500]))
def test_solvers_keep_the_pattern(solver, pattern: Pattern, k: int, n: int, tokens: int) -> None:
    w, _, h = correlated(tokens, k, n)
    mask, pruned = solver(w, h, pattern, 0.5)
    assert pattern.satisfied(mask)
    assert np.isfinite(pruned).all()
    assert not pruned[~mask].any()
    if not pattern.m and pattern.width == 1:
        assert abs((~mask).mean() - 0.5) <= 1 / (2 * min(obs.BLOCK, k % obs.BLOCK or obs.BLOCK) * n)


@pytest.mark.parametrize("pattern", [Pattern.parse(p) for p in PATTERNS], ids=str)
def test_each_solver_is_better_than_the_one_before(pattern: Pattern) -> None:
    w, _, h = correlated(1000, 256, 64)
    errors = [
        relative_error(w, pruned, h)
        for _, pruned in (
            magnitude.prune(w, pattern, 0.5),
            obs.prune(w, h, pattern, 0.5),
            admm.prune(w, h, pattern, 0.5),
        )
    ]
    assert errors[0] > errors[1] > errors[2] > 0


@pytest.mark.parametrize("columns", [3, 8, 100])
def test_relative_error_is_that_of_the_outputs(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr(moments, "_COLUMNS", columns)
    w, x, h = correlated(300, 64, 8)
    changed = np.where(np.abs(w) > 0.5, w, 0)
    direct = np.sum((x @ changed - x @ w) ** 2) / np.sum((x @ w) ** 2)
    # Both are float64 sums of about 300 * 64 terms; H has a condition that the outputs do not see.
    assert relative_error(w, changed, h) == pytest.approx(direct, rel=1e-9)
    assert relative_error(w, w, h) == 0
    assert relative_error(np.zeros_like(w), w, h) == float("inf")


def test_refit_reaches_the_least_squares_solution_of_every_column() -> None:
    w, _, h = correlated(2000, 64, 6)
    moment, scale = normalized(h, 0.01)
    scaled = w * scale[:, None]
    mask = np.random.default_rng(0).random(w.shape) < 0.5
    fitted = refit(scaled, np.where(mask, scaled, 0).astype(np.float32), mask, moment, iterations=100)
    for column in range(w.shape[1]):
        support = mask[:, column]
        exact = np.linalg.solve(
            moment[np.ix_(support, support)].astype(np.float64),
            (moment.astype(np.float64) @ scaled[:, column])[support],
        )
        # Conjugate gradients in float32 end within a few eps * condition of the solution: condition < 100 by damping.
        assert (
            np.abs(fitted[support, column] - exact).max() <= 100 * 16 * np.finfo(np.float32).eps * np.abs(exact).max()
        )


def test_refit_never_ends_above_its_start() -> None:
    w, _, h = correlated(500, 128, 16)
    moment, scale = normalized(h, 0.01)
    scaled = w * scale[:, None]
    mask, _ = magnitude.prune(scaled, Pattern.parse("16:64"))
    start = np.where(mask, scaled, 0).astype(np.float32)
    assert relative_error(scaled, refit(scaled, start, mask, moment, 20), moment) < relative_error(
        scaled, start, moment
    )


@pytest.mark.parametrize("solver", [admm.prune, obs.prune], ids=["admm", "obs"])
def test_dead_inputs_are_dropped_and_harm_nothing(solver) -> None:
    w, x, _ = correlated(400, 128, 8)
    x[:, 10:20] = 0
    _, pruned = solver(w, x.T @ x, Pattern.parse("32:64"))
    assert not pruned[10:20].any()
    live = np.delete(np.arange(128), np.arange(10, 20))
    assert relative_error(w[live], pruned[live], (x.T @ x)[np.ix_(live, live)]) < 0.5


@pytest.mark.parametrize("solver", [admm.prune, obs.prune], ids=["admm", "obs"])
def test_what_is_not_finite_is_refused(solver) -> None:
    w, _, h = correlated(100, 64, 4)
    with pytest.raises(ValueError, match="finite"):
        solver(w, np.full_like(h, np.nan), Pattern.parse("32:64"))
    with pytest.raises(ValueError, match="finite"):
        solver(np.full_like(w, np.inf), h, Pattern.parse("32:64"))


def test_same_input_same_bytes() -> None:
    w, _, h = correlated(300, 128, 16)
    first, second = (admm.prune(w, h, Pattern.parse("16:64"))[1] for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("solver", [admm.prune, obs.prune], ids=["admm", "obs"])
def test_weights_of_inputs_that_hardly_move_do_not_grow(solver) -> None:
    """Fewer tokens than inputs: any error on them could be fitted by huge weights of inputs that are nearly dead."""
    w, x, _ = correlated(100, 256, 8)
    x[:, ::4] *= 1e-4
    _, pruned = solver(w, x.T @ x, Pattern.parse("32:64"))
    assert np.abs(pruned).max() < 4 * np.abs(w).max()


def test_what_is_learnt_from_few_tokens_holds_on_others() -> None:
    w, x, _ = correlated(2500, 256, 32)
    x[:, ::4] *= 1e-4
    few, others = x[:100], x[100:]
    h, truth = few.T @ few, others.T @ others
    pattern = Pattern.parse("32:64")
    found = best.prune(w, Factors(h), pattern, levels=127)
    assert relative_error(w, found.weight, truth) < relative_error(w, magnitude.prune(w, pattern)[1], truth) / 4
