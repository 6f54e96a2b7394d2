"""JUnit's XML: valid whatever is in it, a case a budget, and a failure that says by how much."""

from __future__ import annotations

import xml.etree.ElementTree as xml
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sparsify.report import junit
from tests.report import junit_structure


def report(*verdicts: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "audit",
        "summary": "over budget",
        "accepted": all(v["passed"] for v in verdicts),
        "versions": {"sparsify": "0.1"},
        "base": {"path": "a.onnx", "sha256": "00ff", "bytes": 3},
        "drift": {"verdicts": list(verdicts)},
        "seconds": 1.25,
    }


def verdict(**changed: Any) -> dict[str, Any]:
    return {
        "budget": "cosine>=0.99",
        "output": "y",
        "value": 0.98,
        "limit": 0.99,
        "bound": 0.97,
        "passed": False,
        "state": "failed",
        "what": "`cosine` of `y` is at least 0.97, allowed >= 0.99",
        "reason": "",
        **changed,
    }


def suite(found: dict[str, Any]) -> xml.Element:
    root = xml.fromstring(junit.render(found).encode())
    junit_structure.check(root)
    return root[0]


def test_a_failure_says_value_bound_limit_and_reason():
    root = suite(report(verdict(reason="ranking needs it"), verdict(budget="max_abs<=1", passed=True)))
    whole, broken, held = root.iter("testcase")
    assert (root.get("tests"), root.get("failures"), root.get("time")) == ("3", "2", "1.250")
    assert broken.get("time") is None  # the budgets are judged together
    assert whole.get("time") == "1.250"
    failure = broken.find("failure")
    assert failure is not None
    assert failure.get("message") == "cosine>=0.99 @ y: value 0.98, bound 0.97, limit 0.99"
    assert failure.get("type") == "sparsify.over_budget"
    assert failure.text == "`cosine` of `y` is at least 0.97, allowed >= 0.99\ndemanded because: ranking needs it"
    assert held.find("failure") is None
    assert {p.get("name"): p.get("value") for p in root.iter("property")} == {
        "base.path": "a.onnx",
        "base.sha256": "00ff",
        "version.sparsify": "0.1",
    }


def test_kinds_of_failure_can_be_told_apart():
    undecided = verdict(state="undecided")
    root = suite(
        report(verdict(budget="finite", what="NaN"), verdict(budget="baseline cosine@y", value=None), undecided)
    )
    found = [failure.get("type") for failure in root.iter("failure")]
    assert found == ["sparsify.refused", "sparsify.not_finite", "sparsify.worse_than_baseline", "sparsify.undecided"]
    assert "value not finite" in (list(root.iter("failure"))[2].get("message") or "")


@given(st.text(max_size=50))
def test_is_xml_whatever_a_model_calls_its_outputs(name: str):
    root = suite(report(verdict(output=name, what=name, reason=name)))
    assert len(list(root.iter("testcase"))) == 2


def test_a_report_without_budgets_is_one_case_that_passes():
    root = suite(report())
    assert [case.get("name") for case in root.iter("testcase")] == ["verdict"]
    assert root.get("failures") == "0"
