"""What layers should aim at once the layers before them have changed."""

from __future__ import annotations

import numpy as np
import pytest

from sparsify.solvers import statistics
from sparsify.solvers.statistics import LAMBDA, Statistics, products


def drawn(tokens: int = 400, k: int = 12, n: int = 5) -> tuple[np.ndarray, ...]:
    """X', X, R - R' and W, all float32."""
    rng = np.random.default_rng(1)
    dense = rng.standard_normal((tokens, k)) @ rng.standard_normal((k, k)) + 2
    changed = dense + 0.3 * rng.standard_normal((tokens, k)) + 0.5
    residual = rng.standard_normal((tokens, n)) + 1
    weight = rng.standard_normal((k, n))
    return tuple(a.astype(np.float32) for a in (changed, dense, residual, weight))


def collected(
    changed: np.ndarray, dense: np.ndarray | None, residual: np.ndarray | None, weight: np.ndarray | None = None
) -> Statistics:
    """In two batches, as they come."""
    found = Statistics(changed.shape[1])
    for rows in (slice(0, 150), slice(150, None)):
        found.add(products(changed[rows], *(None if a is None else a[rows] for a in (dense, residual)), weight))
    return found


@pytest.mark.parametrize("columns", [2, 4096])
@pytest.mark.parametrize("for_one_weight", [False, True])
@pytest.mark.parametrize("centred", [False, True])
def test_the_target_is_the_ridge_solution(
    monkeypatch: pytest.MonkeyPatch, centred: bool, for_one_weight: bool, columns: int
):
    monkeypatch.setattr(statistics, "_COLUMNS", columns)
    changed, dense, residual, weight = drawn()
    one = weight if for_one_weight else None
    found = collected(changed, dense, residual, one).target(weight, 1.0, centred=centred)
    x, wanted = changed.astype(np.float64), dense.astype(np.float64) @ weight + residual
    if centred:
        x, wanted = x - x.mean(axis=0), wanted - wanted.mean(axis=0)
    h = x.T @ x
    ridge = LAMBDA * np.diag(np.diag(h))
    exact = np.linalg.solve(h + ridge, x.T @ wanted + ridge @ weight)
    # Sums are of float32 products: each is off by eps |x||x|, and the ridge bounds the condition by K / LAMBDA.
    tolerance = 12 / LAMBDA * np.finfo(np.float32).eps * np.abs(exact).max() * 10
    assert np.abs(found - exact).max() <= tolerance
    half = collected(changed, dense, residual, one).target(weight, 0.5, centred=centred)
    assert np.abs(half - (weight + exact) / 2).max() <= tolerance


def test_the_bias_keeps_the_mean_output():
    changed, dense, residual, weight = drawn()
    pruned = np.where(np.abs(weight) > 0.5, weight, 0).astype(np.float32)
    shift = collected(changed, dense, residual).bias_shift(weight, pruned, 0.5)
    wanted = (dense @ weight + residual).mean(axis=0, dtype=np.float64)
    got = (changed @ pruned + shift).mean(axis=0, dtype=np.float64)
    assert got == pytest.approx(wanted, abs=1e-4)  # 400 float32 terms of size 50: 50 * 2^-24 * sqrt(400) is 6e-5


def test_without_a_change_upstream_the_target_is_the_weight():
    changed, _, _, weight = drawn()
    found = collected(changed, None, None)
    assert found.target(weight, 1.0, centred=True) is weight
    assert found.second_moment(centred=False) == pytest.approx(changed.T @ changed, rel=1e-3)
    empty = Statistics(12)
    assert empty.target(weight, 1.0, centred=True) is weight
    assert not empty.bias_shift(weight, weight, 1.0).any()


def test_dead_and_constant_inputs_leave_the_target_finite():
    changed, dense, _, weight = drawn()
    changed[:, 0] = dense[:, 0] = 0
    changed[:, 1] = 3
    found = collected(changed, dense, None).target(weight, 1.0, centred=True)
    assert np.isfinite(found).all()
    assert (found[0] == weight[0]).all()
