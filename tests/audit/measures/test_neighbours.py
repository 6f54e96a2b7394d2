"""Neighbours against scikit-learn's definition, bounded memory, and ties."""

from __future__ import annotations

import numpy as np
import pytest

from sparsify.audit.measures import neighbours
from sparsify.audit.measures.neighbours import Neighbours
from sparsify.audit.measures.table import Sum, empty


def agreement(base: np.ndarray, candidate: np.ndarray, cut: int = 7) -> float:
    found = Neighbours(seed=0)
    for first in range(0, len(base), cut):
        found.add(base[first : first + cut], candidate[first : first + cut])
    table = empty(len(base))
    found.fill(table)
    return float(table[:, Sum.NEIGHBOURS].sum() / table[:, Sum.QUERIES].sum())


def by_hand(base: np.ndarray, candidate: np.ndarray, k: int) -> float:
    def nearest(a: np.ndarray, i: int) -> set[int]:
        others = [j for j in range(len(a)) if j != i]
        return set(sorted(others, key=lambda j: -(a[i] @ a[j]) / np.linalg.norm(a[i]) / np.linalg.norm(a[j]))[:k])

    return float(np.mean([len(nearest(base, i) & nearest(candidate, i)) / k for i in range(len(base))]))


@pytest.mark.parametrize(("n", "k"), [(40, 10), (12, 5), (3, 1)])
def test_agrees_with_the_definition(n: int, k: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(neighbours, "_BLOCK", 3 * n)  # three rows at a time
    random = np.random.default_rng(n)
    base = random.standard_normal((n, 8)).astype(np.float32)
    candidate = base + 0.5 * random.standard_normal((n, 8)).astype(np.float32)
    assert agreement(base, candidate) == pytest.approx(by_hand(base, candidate, k))


def test_equal_embeddings_agree_though_texts_repeat():
    base = np.repeat(np.random.default_rng(0).standard_normal((4, 8)), 10, axis=0)
    assert agreement(base, base.copy()) == 1


def test_unrelated_embeddings_agree_by_chance():
    random = np.random.default_rng(1)
    base, candidate = random.standard_normal((2, 500, 16))
    # Hypergeometric: mean 10/499, standard deviation of a query's share below sqrt(0.02 * 0.98 / 10) = 0.045; of the
    # mean of 500 dependent ones taken as twice 0.045 / sqrt(500) = 0.004; four of these.
    assert agreement(base, candidate) == pytest.approx(10 / 499, abs=0.016)


def test_keeps_a_fair_draw_within_its_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(neighbours, "MEMORY", 100 * 8 * 4)  # 100 embeddings of width 4, twice, as float32
    found = Neighbours(seed=3)
    random = np.random.default_rng(0)
    for _ in range(50):
        part = random.standard_normal((20, 4))
        found.add(part, part)
        assert found.kept <= 100
    table = empty(1000)
    found.fill(table)
    kept = np.flatnonzero(table[:, Sum.QUERIES])
    assert len(kept) == 100
    # Numbers of a fair draw have mean 500 and standard deviation 289 / sqrt(100) = 29; four of these.
    assert abs(kept.mean() - 500) < 116


def test_two_samples_have_no_neighbours_to_choose_from():
    found = Neighbours(seed=0)
    found.add(np.eye(2), np.eye(2))
    table = empty(2)
    found.fill(table)
    assert not table[:, Sum.QUERIES].any()
