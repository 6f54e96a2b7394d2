"""What a CI server shows: a test case for each budget, and one for the result as a whole.

The structure is that of junit-10.xsd of Jenkins' xUnit plug-in, which pytest keeps to as well: testsuites / testsuite /
properties, then testcase / failure.
"""

from __future__ import annotations

import xml.etree.ElementTree as xml
from collections.abc import Iterator
from typing import Any

from sparsify.errors import printable
from sparsify.report import units
from sparsify.report.table import Report
from sparsify.report.tables import headline


def render(report: Report) -> str:
    """The report as JUnit's XML."""
    cases = list(_cases(report))
    failed = sum(1 for case in cases if case.find("failure") is not None)
    counts = {"tests": str(len(cases)), "failures": str(failed), "errors": "0"}
    if "seconds" in report:  # known to the command line alone: reports of the same are the same
        # The budgets are judged together, so the time is that of the whole.
        counts["time"] = f"{report['seconds']:.3f}"
        cases[0].set("time", counts["time"])
    root = xml.Element("testsuites", {"name": "sparsify", **counts})
    suite = xml.SubElement(root, "testsuite", {"name": f"sparsify.{report['kind']}", "skipped": "0", **counts})
    properties = xml.SubElement(suite, "properties")
    for name, value in _properties(report):
        xml.SubElement(properties, "property", name=name, value=printable(value))
    suite.extend(cases)
    xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring(root, encoding="unicode") + "\n"


def _properties(report: Report) -> Iterator[tuple[str, str]]:
    for side in ("base", "candidate", "data"):
        for key in ("path", "source", "sha256"):
            if (report.get(side) or {}).get(key):
                yield f"{side}.{key}", str(report[side][key])
    for name, version in report["versions"].items():
        yield f"version.{name}", str(version)


def _cases(report: Report) -> Iterator[xml.Element]:
    whole = _case(f"sparsify.{report['kind']}", "verdict")
    if not report.get("accepted", True):
        _fail(whole, "refused", headline(report), "")
    yield whole
    for verdict in (report.get("drift") or {}).get("verdicts") or []:
        case = _case(f"sparsify.{report['kind']}.budget", f"{verdict['budget']} @ {verdict['output']}")
        if not verdict["passed"]:
            _fail(case, _type(verdict), _message(verdict), "\n".join(filter(None, (verdict["what"], _why(verdict)))))
        yield case


def _case(classname: str, name: str) -> xml.Element:
    return xml.Element("testcase", classname=classname, name=printable(name))


def _fail(case: xml.Element, kind: str, message: str, text: str) -> None:
    failure = xml.SubElement(case, "failure", type=f"sparsify.{kind}", message=printable(message))
    failure.text = "\n".join(map(printable, text.splitlines())) or None


def _type(verdict: dict[str, Any]) -> str:
    if verdict["budget"] == "finite":
        return "not_finite"
    if verdict["state"] == "undecided":
        return "undecided"
    return "worse_than_baseline" if verdict["budget"].startswith("baseline ") else "over_budget"


def _message(verdict: dict[str, Any]) -> str:
    """Value, bound and limit; those of them that are no number are named too."""
    figures = {key: verdict.get(key) for key in ("value", "bound", "limit")}
    said = ", ".join(f"{key} {'not finite' if f is None else units.number(f)}" for key, f in figures.items())
    return verdict["what"] if verdict["budget"] == "finite" else f"{verdict['budget']} @ {verdict['output']}: {said}"


def _why(verdict: dict[str, Any]) -> str:
    return f"demanded because: {verdict['reason']}" if verdict.get("reason") else ""
