"""No worse than an accepted report: by hand-made figures, and as a property of any two."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsify.audit import Estimate, OutputDrift, baseline
from sparsify.audit.persample import PerSample


def output(**metrics: Estimate) -> dict[str, OutputDrift]:
    nothing = PerSample("relative_l2", (), 1, ())
    return {"y": OutputDrift("y", 24, metrics, exact=False, mismatches=0, unseen_share=0.1, per_sample=nothing)}


def judged(metric: str, old: Estimate, new: Estimate) -> Any:
    verdicts, notes = baseline.judge({"y": {metric: old}}, output(**{metric: new}))
    assert notes == ()
    (verdict,) = verdicts
    return verdict


@pytest.mark.parametrize(
    ("metric", "old", "new", "passed", "limit"),
    [
        # noise = hypot(0.03, 0.04) = 0.05 on the adverse side; the other side of the interval is of no account
        ("cosine", Estimate(0.9, 0.87, 0.99), Estimate(0.86, 0.82, 0.99), True, 0.85),
        ("cosine", Estimate(0.9, 0.87, 0.99), Estimate(0.84, 0.80, 0.99), False, 0.85),
        ("cosine", Estimate(0.9, 0.87, 0.99), Estimate(0.95, 0.91, 0.99), True, 0.85),
        ("relative_l2", Estimate(0.1, 0.0, 0.13), Estimate(0.14, 0.0, 0.18), True, 0.15),
        ("relative_l2", Estimate(0.1, 0.0, 0.13), Estimate(0.16, 0.0, 0.20), False, 0.15),
        # of max_abs, whose upper end is the value itself, the lower end tells the noise
        ("max_abs", Estimate(1.0, 0.97, 1.0), Estimate(1.04, 1.0, 1.04), True, 1.05),
        ("max_abs", Estimate(1.0, 0.97, 1.0), Estimate(1.06, 1.02, 1.06), False, 1.05),
        # what was exact must stay exact
        ("sqnr_db", Estimate(math.inf, math.inf, math.inf), Estimate(math.inf, math.inf, math.inf), True, math.inf),
        ("sqnr_db", Estimate(math.inf, math.inf, math.inf), Estimate(90.0, 90.0, 95.0), False, math.inf),
        ("sqnr_db", Estimate(30.0, 29.0, 31.0), Estimate(math.inf, math.inf, math.inf), True, 29.0),
        # never a pass by what is no number, or by noise without end
        ("cosine", Estimate(0.9, 0.87, 0.99), Estimate(math.nan, math.nan, math.nan), False, math.nan),
        ("relative_l2", Estimate(0.1, 0.0, math.inf), Estimate(0.1, 0.0, 0.2), False, math.inf),
    ],
)
def test_worse_by_more_than_noise_fails(metric: str, old: Estimate, new: Estimate, passed: bool, limit: float):
    verdict = judged(metric, old, new)
    assert verdict.demand == f"baseline {metric}@y"
    assert verdict.passed is passed
    assert verdict.limit == pytest.approx(limit, nan_ok=True)
    assert "in the baseline" in verdict.what
    assert verdict.state == (
        "passed" if passed else "undecided" if limit == math.inf and metric != "sqnr_db" else "failed"
    )


figures = st.tuples(*[st.floats(-1, 1)] * 3).map(lambda v: Estimate(sorted(v)[1], sorted(v)[0], sorted(v)[2]))


@given(figures, figures)
def test_a_report_is_no_worse_than_itself_and_one_of_two_always_passes(a: Estimate, b: Estimate):
    assert judged("cosine", a, a).passed
    assert judged("cosine", a, b).passed or judged("cosine", b, a).passed


def test_what_is_in_one_report_only_is_said():
    old = {"y": {"cosine": Estimate(1, 1, 1), "flips": Estimate(0, 0, 0)}, "z": {"cosine": Estimate(1, 1, 1)}}
    verdicts, notes = baseline.judge(old, output(cosine=Estimate(1, 1, 1), max_abs=Estimate(0, 0, 0)))
    assert [v.demand for v in verdicts] == ["baseline cosine@y"]
    assert [n.split(" cannot")[0] for n in notes] == ["`y`: `flips`, `max_abs`", "`z`: `cosine`"]


def test_a_baseline_figure_that_is_no_number_judges_nothing_but_is_said():
    verdicts, notes = baseline.judge({"y": {"cosine": Estimate(math.nan, 0, 0)}}, output(cosine=Estimate(1, 1, 1)))
    assert verdicts == ()
    assert len(notes) == 1
