"""What a CI server shows: a test case for each budget, and one for the result as a whole."""

from __future__ import annotations

import xml.etree.ElementTree as xml
from collections.abc import Iterator

from sparsify.report.table import Report
from sparsify.report.tables import headline


def render(report: Report) -> str:
    """The report as JUnit's XML."""
    cases = list(_cases(report))
    failed = sum(1 for case in cases if case.find("failure") is not None)
    suite = xml.Element("testsuite", name=report["title"], tests=str(len(cases)), failures=str(failed), errors="0")
    suite.extend(cases)
    root = xml.Element("testsuites")
    root.append(suite)
    xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring(root, encoding="unicode") + "\n"


def _cases(report: Report) -> Iterator[xml.Element]:
    whole = xml.Element("testcase", classname=f"sparsify.{report['kind']}", name="verdict")
    if not report.get("accepted", True):
        xml.SubElement(whole, "failure", message=headline(report))
    yield whole
    for verdict in (report.get("drift") or {}).get("verdicts") or []:
        name = f"{verdict['budget']} @ {verdict['output']}"
        case = xml.Element("testcase", classname=f"sparsify.{report['kind']}.budget", name=name)
        if not verdict["passed"]:
            xml.SubElement(case, "failure", message=verdict["what"])
        yield case
