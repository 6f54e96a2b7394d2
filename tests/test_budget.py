"""Budgets read and write the same text, and refuse what makes no sense."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsify import budget
from sparsify.budget import METRICS, Budget
from sparsify.errors import UsageError


@st.composite
def budgets(draw: st.DrawFn) -> Budget:
    metric = draw(st.sampled_from(sorted(METRICS)))
    limit = draw(st.floats(METRICS[metric].low, METRICS[metric].high, allow_nan=False))
    # Text is stripped around the name, so that `cosine@y >= 0.9` means output `y`.
    output = draw(st.none() | st.text(min_size=1).filter(lambda s: s == s.strip()))
    return Budget(metric, limit, output)


@given(budgets())
def test_text_reads_back_as_the_same_budget(b: Budget):
    assert budget.parse(str(b)) == b


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cosine>=0.99", Budget("cosine", 0.99)),
        (" sqnr_db >= 30 ", Budget("sqnr_db", 30.0)),
        ("top1_agreement@logits>=0.99", Budget("top1_agreement", 0.99, "logits")),
        ("max_abs<=1e-3", Budget("max_abs", 1e-3)),
        ("cosine@a@b:0>=1>=0.5", Budget("cosine", 0.5, "a@b:0>=1")),
        ("sqnr_db>=inf", Budget("sqnr_db", math.inf)),
    ],
)
def test_reads(text: str, expected: Budget):
    assert budget.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("cosin>=0.9", "no such metric", "did you mean `cosine`? known: cosine, sqnr_db, relative_l2"),
        ("speed>=2", "no such metric", "cosine, sqnr_db, relative_l2, max_abs, mean_abs, psnr_db, top1"),
        ("cosine<=0.9", "`cosine` is better when it is higher", "write `cosine>=0.9`"),
        ("max_abs@y>=0.1", "`max_abs` is better when it is lower", "write `max_abs@y<=0.1`"),
        ("cosine>=2", "`cosine` is between -1 and 1, got 2", "for example `cosine>=0.99`"),
        ("max_abs<=-1", "`max_abs` is between 0 and inf, got -1", "for example"),
        ("cosine>=nan", "`cosine` is between -1 and 1, got nan", "for example"),
        ("cosine>=high", "not a number: `high`", "for example"),
        ("cosine", "a budget is METRIC[@OUTPUT](>=|<=)NUMBER", "for example"),
        ("cosine>0.9", "a budget is METRIC[@OUTPUT](>=|<=)NUMBER", "for example"),
        ("", "a budget is METRIC[@OUTPUT](>=|<=)NUMBER", "for example"),
    ],
)
def test_refuses_with_what_where_and_a_hint(text: str, what: str, hint: str):
    with pytest.raises(UsageError) as error:
        budget.parse(text)
    assert error.value.what == what
    assert error.value.where == f"budget `{text}`"
    assert error.value.hint.startswith(hint)


def test_allows_up_to_the_limit_and_never_nan():
    lower, upper = Budget("cosine", 0.5), Budget("max_abs", 0.5)
    assert [lower.allows(v) for v in (0.4, 0.5, 0.6, math.nan)] == [False, True, True, False]
    assert [upper.allows(v) for v in (0.4, 0.5, 0.6, math.nan)] == [True, True, False, False]
