"""Never worse than the optimal brain surgeon, on the same H, on the same grid, in any column."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsify.parallel import one_blas_thread
from sparsify.patterns import Pattern
from sparsify.solvers import admm, best, obs
from sparsify.solvers.factors import Factors
from sparsify.solvers.moments import relative_error
from sparsify.solvers.quantize import quantize
from tests.solvers.inputs import correlated

PATTERNS = [Pattern.parse(p) for p in ("32:64", "4:16", "2:4", "unstructured", "per-column", "4x1")]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """As the pass has it: on a busy machine threads of BLAS that wait for each other took thirty times as long."""
    with one_blas_thread():
        yield


def errors(weight: np.ndarray, changed: np.ndarray, h: np.ndarray) -> np.ndarray:
    d = changed.astype(np.float64) - weight
    return np.einsum("kn,kn->n", d, h @ d)


def surgeon(weight: np.ndarray, factors: Factors, pattern: Pattern, levels: int) -> np.ndarray:
    """What `obs` makes, rounded as `sparse-int8` would."""
    _, found = obs.prune(weight, factors, pattern, 0.5)
    if not levels:
        return found
    q, scale = quantize(found, levels)
    return (q * scale).astype(np.float32)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@settings(deadline=None, max_examples=12)
@given(
    k=st.sampled_from([1, 3, 64, 70, 130]),
    n=st.integers(1, 9),
    tokens=st.sampled_from([1, 3, 50, 500]),
    levels=st.sampled_from([0, 1, 7, 127]),
    seed=st.integers(0, 99),
    dead=st.booleans(),
)
def test_no_column_is_worse_than_the_surgeon_leaves_it(
    pattern: Pattern, k: int, n: int, tokens: int, levels: int, seed: int, dead: bool
) -> None:
    w, x, _ = correlated(tokens, k, n, seed)
    if dead:
        x[:, :: k // 2 + 1] = 0
    factors = Factors(x.T @ x)
    found = best.prune(w, factors, pattern, 0.5, levels=levels)
    assert pattern.satisfied(found.mask)
    assert not found.weight[~found.mask].any()
    own, other = (errors(w, v, factors.given) for v in (found.weight, surgeon(w, factors, pattern, levels)))
    apart = bool(pattern.m) or pattern.by_column
    # Both are float64 sums of K^2 products, in an order that depends on how many columns go together.
    slack = 4 * k * np.finfo(np.float64).eps * errors(w, np.zeros_like(w), factors.given)
    assert (own <= other + slack).all() if apart else own.sum() <= other.sum() + slack.sum()
    energy = errors(w, np.zeros_like(w), factors.given).sum()
    assert found.error * energy == pytest.approx(own.sum(), abs=slack.sum())
    assert found.surgeon_error * energy == pytest.approx(other.sum(), abs=slack.sum())


@pytest.mark.parametrize("levels", [0, 127])
def test_columns_that_the_surgeon_won_are_refitted_on_its_mask(monkeypatch: pytest.MonkeyPatch, levels: int) -> None:
    """With an ADMM that does badly in every second column."""
    w, _, h = correlated(400, 128, 8)
    factors, pattern = Factors(h), PATTERNS[0]
    honest = admm.prune

    def poor(*args, **options):
        mask, found = honest(*args, **options)
        found[:, ::2] = 0
        return mask, found

    monkeypatch.setattr(admm, "prune", poor)
    found = best.prune(w, factors, pattern, levels=levels)
    mask, _ = obs.prune(w, factors, pattern)
    assert found.won == 0.5
    assert (found.mask[:, ::2] == mask[:, ::2]).all()
    assert (errors(w, found.weight, h) < errors(w, surgeon(w, factors, pattern, levels), h)).all()
    assert found.error == pytest.approx(relative_error(w, found.weight, h), rel=1e-9)


def test_the_surgeon_is_beaten_where_inputs_depend_on_each_other() -> None:
    w, _, h = correlated(1000, 256, 64)
    for pattern in PATTERNS:
        found = best.prune(w, Factors(h), pattern, 0.5, levels=127)
        assert 0 < found.error < 0.95 * found.surgeon_error


def test_no_columns() -> None:
    found = best.prune(np.zeros((4, 0), np.float32), Factors(np.eye(4)), PATTERNS[0])
    assert found.weight.shape == found.mask.shape == (4, 0)
    assert found.error == found.won == 0
