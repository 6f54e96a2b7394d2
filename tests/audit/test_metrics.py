"""Metrics against float64 definitions written out once more, and intervals against theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from sparsify.audit import metrics
from sparsify.audit.measures import blocks, estimate
from sparsify.audit.measures.classes import Classes
from sparsify.audit.metrics import Estimate, Sum

FLOAT_METRICS = ["cosine", "sqnr_db", "relative_l2", "max_abs", "mean_abs"]


def measure(base: np.ndarray, candidate: np.ndarray, names: list[str], *extra: metrics.Rows) -> dict[str, Estimate]:
    return metrics.intervals(metrics.sums(base, candidate, len(base), *extra), names, 0)


def reference(base: np.ndarray, candidate: np.ndarray) -> dict[str, float]:
    """Sample by sample in plain Python, with exactly rounded sums."""
    cosines, power, error, largest, total = [], 0.0, 0.0, 0.0, 0.0
    for b, c in zip(base.reshape(len(base), -1).tolist(), candidate.reshape(len(base), -1).tolist(), strict=True):
        bb, cc = math.fsum(v * v for v in b), math.fsum(v * v for v in c)
        dd = math.fsum((v - w) ** 2 for v, w in zip(c, b, strict=True))
        bc = math.fsum(v * w for v, w in zip(c, b, strict=True))
        cosines.append(1.0 if dd == 0 else 0.0 if not bb or not cc else bc / (math.sqrt(bb) * math.sqrt(cc)))
        power, error = power + bb, error + dd
        far = [abs(v - w) for v, w in zip(c, b, strict=True)]
        largest, total = max([largest, *far]), total + math.fsum(far)
    relative = 0.0 if error == 0 else math.sqrt(error / power) if power else math.inf
    sqnr = math.inf if relative == 0 else -math.inf if math.isinf(relative) else -20 * math.log10(relative)
    return {
        "cosine": math.fsum(cosines) / len(cosines),
        "sqnr_db": sqnr,
        "relative_l2": relative,
        "max_abs": largest,
        "mean_abs": total / base.size,
    }


# Up to 2^60 so that squares stay far inside float64; down to 2^-60 so that they do not vanish.
ELEMENTS = st.floats(-(2.0**60), 2.0**60, width=32).map(lambda v: 0.0 if abs(v) < 2.0**-60 else v)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=5))
    base, candidate = (draw(hnp.arrays(np.float32, shape, elements=ELEMENTS)) for _ in range(2))
    same = draw(st.booleans())
    return base, base.copy() if same else candidate


@given(pairs())
def test_float_metrics_agree_with_their_definitions(pair):
    base, candidate = pair
    found, expected = measure(base, candidate, FLOAT_METRICS), reference(base, candidate)
    # Sums of at most 125 float64 products (25 a sample) and a handful of roundings: relative error of the sums below
    # 25 * 2^-53 each, and of a dot product 25 * 2^-53 |b||c|, which is what a cosine is divided by.
    for name in ("cosine", "relative_l2", "max_abs", "mean_abs"):
        assert found[name].value == pytest.approx(expected[name], rel=1e-13, abs=1e-13 if name == "cosine" else 0)
    # d(20 log10 r) = 8.7 dr/r
    assert found["sqnr_db"].value == pytest.approx(expected["sqnr_db"], abs=1e-12, rel=1e-13)
    for figure in found.values():
        assert figure.low <= figure.value <= figure.high


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=5), elements=ELEMENTS))
def test_no_drift_is_perfect(base: np.ndarray):
    found = measure(base, base.copy(), FLOAT_METRICS)
    assert {n: e.value for n, e in found.items()} == {
        "cosine": 1.0,
        "sqnr_db": math.inf,
        "relative_l2": 0.0,
        "max_abs": 0.0,
        "mean_abs": 0.0,
    }
    assert {n: (e.low, e.high) for n, e in found.items()} == {n: (e.value, e.value) for n, e in found.items()}


@given(
    hnp.arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 4)), elements=st.integers(0, 2)),
    st.randoms(use_true_random=False),
)
def test_integers_agree_or_not(base: np.ndarray, random):
    candidate = np.array([[v if random.random() < 0.7 else 9 for v in row] for row in base.tolist()])
    expected = np.mean([v == w for v, w in zip(base.ravel(), candidate.ravel(), strict=True)])
    assert measure(base, candidate, ["agreement"])["agreement"].value == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_top1_counts_rows_of_the_last_axis(dtype):
    base = np.array([[[1, 5, 2], [7, 0, 0]], [[1, 1, 0], [0, 0, 3]]], dtype)  # [2 samples, 2 rows, 3 classes]
    candidate = np.array([[[2, 4, 2], [7, 8, 0]], [[0, 1, 0], [9, 0, 3]]], dtype)
    # Largest of base 1, 0, 0 (the first of equals), 2; of the candidate 1, 1, 1, 0.
    assert measure(base, candidate, ["top1_agreement"], Classes())["top1_agreement"].value == 0.25


@pytest.mark.parametrize(
    ("base", "candidate", "mismatches"),
    [
        (np.nan, np.nan, 0),
        (np.inf, np.inf, 0),
        (-np.inf, np.inf, 1),
        (1.0, np.nan, 1),
        (1.0, np.inf, 1),
        (np.nan, 1.0, 1),
        (np.inf, np.nan, 1),
    ],
)
def test_what_is_not_finite_must_be_so_in_both(base: float, candidate: float, mismatches: int):
    b, c = np.ones((3, 2), np.float32), np.ones((3, 2), np.float32)
    b[1, 0], c[1, 0] = base, candidate
    found = metrics.sums(b, c, 3)
    assert found[:, Sum.MISMATCHES].tolist() == [0, mismatches, 0]
    estimates = metrics.intervals(found, FLOAT_METRICS, 0)
    if not mismatches:
        assert estimates["cosine"] == Estimate(1, 1, 1)
        return
    for bound in ("value", "low", "high"):
        assert math.isnan(getattr(estimates["cosine"], bound))
        assert getattr(estimates["sqnr_db"], bound) == -math.inf
        assert getattr(estimates["relative_l2"], bound) == math.inf
    assert estimates["max_abs"].high == math.inf


def test_a_mismatch_never_agrees_on_its_class():
    base, candidate = np.array([[0.0, 5.0]]), np.array([[0.0, np.nan]])  # NumPy's argmax calls NaN the largest
    assert metrics.sums(base, candidate, 1, Classes())[0, Sum.HITS] == 0


def gaussian_samples(rng: np.random.Generator, n: int) -> np.ndarray:
    """Sums whose mean cosine is the mean of n standard normal draws: not a cosine, but the same arithmetic."""
    samples = np.zeros((n, len(Sum)))
    samples[:, Sum.COUNT], samples[:, Sum.COSINE] = 1, rng.standard_normal(n)
    return samples


@pytest.mark.parametrize("n", [8, 30])
def test_intervals_cover_the_truth_as_often_as_theory_says(n: int, monkeypatch: pytest.MonkeyPatch):
    """Coverage of a normal mean by the percentile bootstrap.

    Resampled means have standard deviation s/sqrt(n) with s^2 the mean square deviation, so the interval with tails
    of Phi(-sqrt(n/(n-1)) t) tends to mean +- t sqrt(n/(n-1)) s/sqrt(n), Student's, which holds the true mean with
    probability 0.95 whatever n. Over 300 data sets the share of hits has a binomial standard deviation of 0.0126;
    four of these on each side are a false alarm in 16 000 seeds. 1000 resamples put a bound at the 2.5 % point give
    or take sqrt(0.025 * 0.975 / 1000) = 0.005 at random, which averages out, and skewness is 0.
    """
    trials = 300
    monkeypatch.setattr(estimate, "RESAMPLES", 1000)
    rng = np.random.default_rng(20240601)
    hits = 0
    for trial in range(trials):
        found = metrics.intervals(gaussian_samples(rng, n), ["cosine"], seed=trial)["cosine"]
        hits += found.low <= 0 <= found.high
    assert abs(hits / trials - 0.95) < 4 * math.sqrt(0.95 * 0.05 / trials)


def test_bounds_are_the_normal_ones_for_many_samples():
    """For n = 2000 the bootstrap distribution is normal to O(n^-1/2) skewness, here that of a normal sample, 0.055.

    An edge is the 2.5 % order statistic of 2000 draws: its standard error in units of the spread is
    sqrt(p (1-p) / R) / phi(1.96) = 0.0035 / 0.0584 = 0.06. Four of these, and the Edgeworth term
    skewness / (6 sqrt(n)) * (1.96^2 - 1), below 0.001, are within 0.25.
    """
    n = 2000
    samples = gaussian_samples(np.random.default_rng(7), n)
    found = metrics.intervals(samples, ["cosine"], seed=1)["cosine"]
    spread = samples[:, Sum.COSINE].std() / math.sqrt(n)
    assert abs((found.high - found.value) / spread - 1.96) < 0.25
    assert abs((found.value - found.low) / spread - 1.96) < 0.25


def test_ratios_are_resampled_as_ratios():
    """Two kinds of samples, power 1 and 9, error 0.01 each: every resample lies between the two pure ones."""
    samples = np.zeros((40, len(Sum)))
    samples[:, Sum.COUNT] = 1
    samples[:, Sum.BASE], samples[:, Sum.ERROR] = np.tile([1.0, 9.0], 20), 0.01
    found = metrics.intervals(samples, ["relative_l2", "sqnr_db"], seed=0)
    relative, sqnr = found["relative_l2"], found["sqnr_db"]
    assert relative.value == pytest.approx(math.sqrt(0.01 / 5), rel=1e-12)
    assert math.sqrt(0.01 / 9) < relative.low < relative.value < relative.high < math.sqrt(0.01)
    # sqnr_db falls as relative_l2 rises; the ends are order statistics of the same resamples.
    assert sqnr.low == pytest.approx(-20 * math.log10(relative.high), rel=1e-12)
    assert sqnr.high == pytest.approx(-20 * math.log10(relative.low), rel=1e-12)


def test_resamples_without_error_do_not_break_the_interval():
    samples = np.zeros((3, len(Sum)))
    samples[:, Sum.COUNT] = samples[:, Sum.BASE] = 1
    samples[0, Sum.ERROR] = 1e-4  # a resample misses it with probability 8/27, and has an SQNR of infinity
    found = metrics.intervals(samples, ["sqnr_db"], seed=0)["sqnr_db"]
    assert found.high == math.inf
    assert found.low < found.value < math.inf


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_lower_bound_of_the_maximum_by_enumeration(values: list[float]):
    """low is the smallest value that a resample's maximum stays at or below with probability 2.5 % or more."""
    samples = np.zeros((len(values), len(Sum)))
    samples[:, Sum.COUNT], samples[:, Sum.MAX_ABS] = 1, values
    found = metrics.intervals(samples, ["max_abs"], seed=0)["max_abs"]
    n = len(values)
    likely = [v for rank, v in enumerate(sorted(values), 1) if (rank / n) ** n >= 0.025]
    assert found == Estimate(max(values), likely[0], max(values))


def test_unseen_share_holds_for_any_continuous_distribution():
    """The share above the largest of n is Beta(1, n) whatever the distribution; its 95 % point is `unseen_share`."""
    for n in (1, 2, 10, 100):
        assert metrics.unseen_share(n) == pytest.approx(stats.beta(1, n).ppf(0.95), rel=1e-9)


def test_the_same_seed_gives_the_same_interval():
    samples = gaussian_samples(np.random.default_rng(0), 20)
    first, same, other = (metrics.intervals(samples, ["cosine"], seed)["cosine"] for seed in (1, 1, 2))
    assert first == same
    assert first != other


def test_blocks_of_resamples_add_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(estimate, "_BLOCK", 20 * 300)  # 300 of 2000 at a time: the last block is short
    drawn = np.concatenate(list(estimate.draws(20, seed=0)))
    assert drawn.shape == (2000, 20)
    assert (drawn.sum(axis=1) == 20).all()


@given(pairs(), st.integers(1, 30))
def test_blocks_say_what_the_whole_says(pair: tuple[np.ndarray, np.ndarray], elements: int):
    base, candidate = pair
    base[..., :1] = np.nan
    whole = metrics.sums(base, candidate, len(base), Classes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_BLOCK", elements)
        cut = metrics.sums(base, candidate, len(base), Classes())
    # Sums of at most 25 terms a sample in another order; of divergences every term is at least 0.
    np.testing.assert_allclose(cut, whole, rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("n", [1, 10, 597])
def test_unanimous_rates_are_bounded_by_wilson(n: int):
    base = np.tile([2.0, 1.0], (n, 1))
    samples = metrics.sums(base, base * 1.5, n, Classes())  # another output, the same classes
    found = metrics.intervals(samples, ["top1_agreement"], seed=0)["top1_agreement"]
    z2 = 1.959964**2
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(n / (n + z2))  # Wilson's lower bound at p = 1
    never = measure(base, base[:, ::-1], ["top1_agreement"], Classes())["top1_agreement"]
    assert (never.value, never.low, never.high) == (0, 0, pytest.approx(z2 / (n + z2)))


def test_an_output_that_is_equal_in_every_bit_agrees_for_sure():
    base = np.tile([2.0, 1.0], (3, 1))
    found = measure(base, base, ["top1_agreement"], Classes())["top1_agreement"]
    assert (found.low, found.high) == (1, 1)


def test_equal_integers_prove_no_more_than_their_number():
    same = np.zeros((10, 4), np.int64)
    found = metrics.intervals(metrics.sums(same, same, 10), ["agreement"], 0, floats=False)["agreement"]
    assert (found.value, found.low) == (1, pytest.approx(10 / (10 + 1.959964**2)))
