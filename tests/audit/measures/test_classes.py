"""Divergences against exact arithmetic, ranks against sets, and what masks and NaNs leave out."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparsify.audit import metrics
from sparsify.audit.measures.classes import Classes, Tokens, divergences
from sparsify.audit.metrics import Estimate, Sum

LOGITS = hnp.arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(2, 8)), elements=st.floats(-60, 60))


def softmax(row: list[float]) -> list[Decimal]:
    powers = [Decimal(v).exp() for v in row]
    return [p / sum(powers) for p in powers]


def kl(p: list[Decimal], q: list[Decimal]) -> Decimal:
    return sum((a * (a / b).ln() for a, b in zip(p, q, strict=True)), Decimal(0))


def exact(b: np.ndarray, c: np.ndarray) -> tuple[float, float]:
    """Mean KL and Jensen-Shannon divergence of softmax rows, in 80 digits."""
    with localcontext() as context:
        context.prec = 80
        both = [(softmax(x), softmax(y)) for x, y in zip(b.tolist(), c.tolist(), strict=True)]
        middles = [[(x + y) / 2 for x, y in zip(p, q, strict=True)] for p, q in both]
        js = sum(((kl(p, m) + kl(q, m)) / 2 for (p, q), m in zip(both, middles, strict=True)), Decimal(0))
        return float(sum((kl(p, q) for p, q in both), Decimal(0)) / len(both)), float(js / len(both))


def measure(b: np.ndarray, c: np.ndarray, names: list[str], how: Classes) -> dict[str, Estimate]:
    return metrics.intervals(metrics.sums(b, c, len(b), how), names, 0)


@settings(max_examples=40)
@given(LOGITS, st.floats(0, 1), st.sampled_from([1e-9, 1e-4, 1.0, 30.0]), st.integers(0, 2**32 - 1))
def test_divergences_of_logits_are_those_of_exact_arithmetic(b: np.ndarray, share: float, size: float, seed: int):
    c = b + size * share * np.random.default_rng(seed).standard_normal(b.shape)
    found = measure(b, c, ["kl_divergence", "js_divergence"], Classes())
    # Logarithms of p lie between -130 and 0 here and are wrong by up to r = 8 roundings of 130 * 2^-53, 1.2e-13 in all;
    # with t that far off, a term p (e^t - 1 - t) is by p |e^t - 1| r <= (p + q) r: 2.4e-13 at most, and where |t| is
    # small by sqrt(2 KL) r (Pinsker). A softmax whose own sum is off by 1e-15 adds (1e-15)^2.
    for value, expected in zip((found[n].value for n in ("kl_divergence", "js_divergence")), exact(b, c), strict=True):
        allowed = 1e-9 * expected + 1.2e-13 * min(2.0, math.sqrt(max(0, 2 * expected))) + 1e-26
        assert abs(value - expected) <= allowed


def test_divergence_of_nearly_equal_rows_has_no_noise():
    b = np.array([[1.0, 2.0, 3.0]])
    c = b + np.array([[0, 1e-9, 0]])
    # To second order KL is the variance of the change under p over 2: p2 (1 - p2) 1e-18 / 2.
    p = math.exp(2) / (math.exp(1) + math.exp(2) + math.exp(3))
    found = measure(b, c, ["kl_divergence", "js_divergence"], Classes())
    assert found["kl_divergence"].value == pytest.approx(p * (1 - p) * 5e-19, rel=1e-5)
    assert found["js_divergence"].value == pytest.approx(p * (1 - p) * 5e-19 / 4, rel=1e-5)


def test_probabilities_are_taken_as_they_are():
    b, c = np.array([[0.5, 0.5, 0.0]], np.float32), np.array([[0.25, 0.75, 0.0]], np.float32)
    found = measure(b, c, ["kl_divergence", "js_divergence"], Classes(logits=False))
    assert found["kl_divergence"].value == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-12)
    m = [0.375, 0.625]
    sides = [sum(p * math.log(p / q) for p, q in zip(x, m, strict=True)) for x in ([0.5, 0.5], [0.25, 0.75])]
    assert found["js_divergence"].value == pytest.approx(sum(sides) / 2, rel=1e-12)


def test_a_class_that_vanished_costs_what_float32_can_hold():
    b, c = np.array([[0.5, 0.5]], np.float32), np.array([[1.0, 0.0]], np.float32)
    found = measure(b, c, ["kl_divergence", "js_divergence"], Classes(logits=False))
    assert found["kl_divergence"].value == pytest.approx(
        0.5 * math.log(0.5) + 0.5 * math.log(0.5 / 2.0**-126), rel=1e-9
    )
    assert found["js_divergence"].value < math.log(2)


def test_forbidden_classes_have_probability_0():
    b, c = np.array([[1.0, 2.0, -np.inf]]), np.array([[1.5, 2.0, -np.inf]])
    found = measure(b, c, ["kl_divergence", "js_divergence", "top1_agreement"], Classes())
    assert (found["kl_divergence"].value, found["js_divergence"].value) == pytest.approx(exact(b[:, :2], c[:, :2]))
    assert found["top1_agreement"].value == 1


@given(LOGITS.filter(lambda a: a.shape[1] > 5), st.integers(0, 9))
def test_top5_is_the_overlap_of_sets(b: np.ndarray, seed: int):
    c = b[:, np.random.default_rng(seed).permutation(b.shape[1])]
    if any(len(set(row)) < len(row) for row in b.tolist()):
        return  # ties have no one set of five
    large = [[set(np.argsort(row)[-5:].tolist()) for row in a] for a in (b, c)]
    expected = np.mean([len(x & y) / 5 for x, y in zip(*large, strict=True)])
    assert measure(b, c, ["top5_agreement"], Classes())["top5_agreement"].value == pytest.approx(expected, rel=1e-15)


def test_flips_are_what_top1_lost():
    b = np.eye(4)[[0, 1, 2, 3]]
    c = np.eye(4)[[0, 1, 3, 2]] + 0.1
    found = measure(b, c, ["flips", "top1_agreement"], Classes())
    one, lost = found["top1_agreement"], found["flips"]
    assert (lost.value, lost.low, lost.high) == (0.5, 1 - one.high, 1 - one.low)


def test_tokens_are_judged_where_the_mask_shows_them():
    vocabulary = 3
    b = np.zeros((1, 3, vocabulary))
    b[0, :, 0] = 1
    c = b.copy()
    c[0, 1] = [0, 1, 0]  # another token, in sight
    c[0, 2] = [0, 9, 0]  # out of sight
    tokens = Tokens(np.array([[True, True, False]]), np.array([[1, -1, -1]]))
    table = metrics.sums(b, c, 1, Classes(tokens=tokens))
    assert table[0, [Sum.ROWS, Sum.HITS, Sum.TOKENS]].tolist() == [2, 1, 1]
    found = metrics.intervals(table, ["token_agreement", "perplexity_ratio"], 0)
    assert found["token_agreement"].value == 0.5
    assert found["perplexity_ratio"].value == 1  # the one token that is foretold is so by equal rows


def test_perplexity_is_that_of_the_tokens_that_follow():
    random = np.random.default_rng(0)
    b, c = random.standard_normal((2, 4, 7)), random.standard_normal((2, 4, 7))
    following = np.array([[3, 0, 6, -1], [1, 2, -1, -1]])
    tokens = Tokens(np.ones((2, 4), bool), following)
    found = metrics.intervals(metrics.sums(b, c, 2, Classes(tokens=tokens)), ["perplexity_ratio"], 0)

    def perplexity(logits: np.ndarray) -> float:
        shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        losses = [-math.log(shares[i, t, k]) for (i, t), k in np.ndenumerate(following) if k >= 0]
        return math.exp(sum(losses) / len(losses))

    assert found["perplexity_ratio"].value == pytest.approx(perplexity(c) / perplexity(b), rel=1e-12)


def test_what_is_nan_in_both_counts_in_nothing_and_in_one_against_it():
    b, c = np.array([[[1.0, 2.0], [np.nan, 1.0]]]), np.array([[[1.0, 2.0], [np.nan, 1.0]]])
    assert metrics.sums(b, c, 1, Classes())[0, [Sum.ROWS, Sum.HITS, Sum.DISTRIBUTIONS]].tolist() == [1, 1, 1]
    c[0, 1, 0] = 5
    broken = metrics.sums(b, c, 1, Classes())
    assert broken[0, [Sum.ROWS, Sum.HITS]].tolist() == [2, 1]
    found = metrics.intervals(broken, ["kl_divergence", "js_divergence", "top1_agreement"], 0)
    assert (found["kl_divergence"].value, found["js_divergence"].high) == (math.inf, math.inf)


def test_divergence_is_that_of_a_row_with_zeros():
    with np.errstate(divide="ignore"):
        log_p, log_q = np.log([[0.0, 1.0]]), np.log([[0.5, 0.5]])
    assert divergences(log_p, log_q)[0] == pytest.approx(math.log(2))
