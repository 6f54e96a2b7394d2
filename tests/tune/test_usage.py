"""How much of a budget is used up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sparsify.audit import DriftReport, audit, usermetrics
from sparsify.budget import Budget, parse
from sparsify.tune.usage import start, usage
from tests import small


def drift(text: str) -> DriftReport:
    halves = small.mlp(), small.mlp()
    for tensor in halves[1].graph.initializer:
        if tensor.name == "b2":
            tensor.raw_data = bytes(len(tensor.raw_data))
    return audit(*halves, [small.feed()], budgets=[text])


@pytest.mark.parametrize("loose", ["cosine>=-1", "sqnr_db>=-100", "relative_l2<=1e9", "max_abs<=1e9"])
def test_a_drift_that_is_just_allowed_uses_all_of_the_budget(loose: str) -> None:
    budget = parse(loose)
    (verdict,) = drift(loose).verdicts
    exact = replace(budget, limit=verdict.bound)
    assert usage(drift(str(exact)), [exact]) == pytest.approx(1, rel=1e-9)
    assert usage(drift(loose), [budget]) < 1


def test_losses_are_squared_errors() -> None:
    looser, strict = parse("relative_l2<=0.8"), parse("relative_l2<=0.4")
    assert usage(drift(str(strict)), [strict]) == pytest.approx(4 * usage(drift(str(looser)), [looser]))


def test_no_budget_allows_what_is_not_finite() -> None:
    broken = small.mlp()
    broken.graph.initializer[0].raw_data = b"\xff" * len(broken.graph.initializer[0].raw_data)
    budget = parse("max_abs<=1e9")
    assert usage(audit(small.mlp(), broken, [small.feed()], budgets=[budget]), [budget]) == math.inf


def test_the_strictest_budget_says_where_to_start() -> None:
    assert start([parse("cosine>=0.99"), parse("sqnr_db>=30")]) == pytest.approx(1e-3)
    assert start([parse("cosine>=0.99")]) == pytest.approx(0.02)
    assert start([parse("relative_l2<=0.1")]) == pytest.approx(0.01)
    assert start([parse("top1_agreement>=0.99"), parse("relative_l2<=0.1")]) == pytest.approx(0.01)
    assert start([parse("top1_agreement>=0.99")]) is None


@pytest.mark.parametrize(("better", "limit"), [("higher", 6.0), ("lower", 8.0)])
def test_metrics_of_somebodys_own_count_from_their_best(better: str, limit: float) -> None:
    def mine(base: Mapping[str, Any], candidate: Mapping[str, Any], _: object) -> float:
        gap = float(np.abs(base["y"] - candidate["y"]).mean())
        return 7 - gap if better == "higher" else 7 + gap

    mine.higher_is_better = better == "higher"  # type: ignore[attr-defined]
    halves = small.mlp(), small.mlp()
    halves[1].graph.initializer[3].raw_data = bytes(len(halves[1].graph.initializer[3].raw_data))
    measures = [usermetrics.load(mine)]
    budget = Budget("mine", limit)
    found = audit(*halves, [small.feed()], budgets=[budget], measures=measures)
    (verdict,) = found.verdicts
    assert usage(found, [budget], {"mine": 7.0}) == pytest.approx(abs(7 - verdict.bound))


def test_a_limit_that_allows_no_loss_is_used_up_by_who_keeps_it() -> None:
    model = small.mlp()
    budget = parse("cosine>=1")
    found = audit(model, model, [small.feed()], budgets=[budget])
    assert bool(found)
    assert usage(found, [budget]) == 1
