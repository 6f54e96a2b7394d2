"""Passed, failed, undecided: and the number of samples that is named would have decided."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest

from sparsify.audit import audit
from sparsify.audit.judging import samples_needed
from sparsify.audit.measures import estimate
from sparsify.audit.metrics import Estimate

SCALED = """<ir_version: 8, opset_import: ["" : 17]>
scaled (float[N,4] x) => (float[N,4] logits) <float[4] s = {1, 1, 1, SCALE}> { logits = Mul(x, s) }"""
BASE, NEAR = (ir.from_onnx_text(SCALED.replace("SCALE", s)) for s in ("1", "0.9"))


def judged(budget: str, n: int, candidate: ir.Model = NEAR):
    x = np.random.default_rng(0).standard_normal((n, 4)).astype(np.float32)
    return audit(BASE, candidate, [{"x": x}], budgets=[budget])


def test_too_few_samples_are_undecided_and_do_not_pass():
    value = judged("cosine>=0", 20).outputs["logits"].metrics["cosine"]
    limit = (value.value + value.low) / 2
    found = judged(f"cosine>={limit!r}", 20)
    (verdict,) = found.verdicts
    assert (verdict.state, verdict.passed, found.state, bool(found)) == ("undecided", False, "undecided", False)
    assert verdict.n_needed is not None
    # Twice as far as the limit: four times as many samples, the last digits of a percentile aside.
    assert verdict.n_needed == pytest.approx(80, abs=1)
    assert verdict.what.endswith(
        f"20 samples can only show that it is at least {value.low:.6g}: about {verdict.n_needed} would decide"
    )
    told = found.to_dict()
    assert (told["state"], told["verdicts"][0]["state"], told["verdicts"][0]["n_needed"]) == (
        "undecided",
        "undecided",
        verdict.n_needed,
    )
    assert judged(f"cosine>={value.low!r}", 20).state == "passed"
    assert judged(f"cosine>={value.value + 1e-6!r}", 20).state == "failed"


def test_failed_outweighs_undecided():
    value = judged("cosine>=0", 20).outputs["logits"].metrics["cosine"]
    x = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    found = audit(BASE, NEAR, [{"x": x}], budgets=[f"cosine>={value.value - 1e-9!r}", "max_abs<=0"])
    assert [v.state for v in found.verdicts] == ["undecided", "failed"]
    assert found.state == "failed"


@pytest.mark.parametrize(("rate", "limit"), [(1.0, 0.99), (0.995, 0.99), (0.002, 0.01), (0.0, 0.01)])
def test_the_samples_that_a_rate_needs_are_those_that_decide(rate: float, limit: float):
    higher = rate > limit
    few = estimate.wilson(rate, 50)
    bound = few.low if higher else few.high
    needed = samples_needed(few, bound, limit, 50)
    assert needed is not None
    enough, short = estimate.wilson(rate, needed), estimate.wilson(rate, needed - 1)
    assert (enough.low >= limit > short.low) if higher else (enough.high <= limit < short.high)
    # Were each sample worth two observations, half as many would do.
    half = samples_needed(Estimate(rate, few.low, few.high, 100), bound, limit, 50)
    assert half == math.ceil(needed / 2) or half == math.ceil((needed - 1) / 2)


def test_no_number_of_samples_shows_a_limit_that_the_value_is_at():
    doubled = ir.from_onnx_text(SCALED.replace("SCALE", "1").replace("{1, 1, 1,", "{2, 2, 2,").replace("1}", "2}"))
    (verdict,) = judged("top1_agreement>=1", 500, doubled).verdicts
    assert (verdict.state, verdict.n_needed) == ("undecided", None)
    assert "no number of samples decides" in verdict.what


def test_one_sample_decides_nothing_but_what_it_saw():
    assert judged("cosine>=0.5", 1).state == "undecided"
    assert judged("cosine>=0.9999999", 1).state == "failed"
    assert judged("max_abs<=9", 1).state == "passed"
    assert judged("cosine>=1", 1, BASE).state == "passed"  # equal in every bit
