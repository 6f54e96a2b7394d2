"""Wilson's interval against SciPy's, and how often intervals of clustered rates hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sparsify.audit.measures import estimate


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_rates_of_single_rows_have_wilsons_interval(drawn: tuple[int, int]):
    hits, n = drawn
    found = estimate.rate(np.repeat([1.0, 0.0], [hits, n - hits]), np.ones(n))
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert found.low <= found.value <= found.high


def test_rows_of_one_sample_that_always_agree_count_once():
    hits = np.repeat([20.0, 0.0], [90, 10])  # 100 samples of 20 rows that are all right or all wrong
    found = estimate.rate(hits, np.full(100, 20.0))
    t = stats.t.ppf(0.975, 99)
    assert found.effective == pytest.approx(100 * (1.959964 / t) ** 2)


def test_independent_rows_count_all():
    rows = np.full(2000, 20.0)
    hits = np.random.default_rng(0).binomial(20, 0.9, 2000).astype(float)
    # The variance of 2000 samples is known to 1 / sqrt(1000), 3 %; four of these.
    assert estimate.rate(hits, rows).effective == pytest.approx(40_000, rel=0.13)


def test_clustered_rates_hold_the_truth_as_often_as_they_say():
    """Beta-binomial rows: samples of 5 to 40 rows, rate 0.9, intra-class correlation 1 / (1 + a + b) = 1/5.

    Over 1000 data sets of 60 samples the share of hits has a standard deviation of 0.007; four of these. Wilson's
    interval at all rows, as if they were independent, holds it in about 60 %.
    """
    random, trials, held, naive = np.random.default_rng(5), 1000, 0, 0
    for _ in range(trials):
        rows = random.integers(5, 41, 60).astype(float)
        hits = random.binomial(rows.astype(int), random.beta(3.6, 0.4, 60)).astype(float)
        found = estimate.rate(hits, rows)
        plain = estimate.wilson(hits.sum() / rows.sum(), rows.sum())
        held += found.low <= 0.9 <= found.high
        naive += plain.low <= 0.9 <= plain.high
    assert abs(held / trials - 0.95) < 4 * math.sqrt(0.95 * 0.05 / trials)
    assert naive / trials < 0.75


@pytest.mark.parametrize("n", [1, 2, 30])
def test_few_samples_give_wide_bounds_that_hold_the_value(n: int):
    value = 0.5
    found = estimate.percentiles(value, np.linspace(0, 1, 2000), n)
    assert found.low <= value <= found.high
    assert (found.high - found.low > 0.99) == (n == 2)  # where Student's t is 12.7, and all resamples count
