"""The structure of JUnit's XML as junit-10.xsd of Jenkins' xUnit plug-in has it: attributes and children, in order.

Written down by hand: a validator for XML Schema would be a heavy dependency for one file of six elements.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as xml

_TIME = r"\d+\.\d+"  # xs:decimal, seconds
_COUNT = r"\d+"
_TEXT = r"(?s).*"
_COUNTS = {"tests": _COUNT, "failures": _COUNT, "errors": _COUNT, "time": _TIME}
# element: (attributes that must be there, those that may be, children in order)
ELEMENTS: dict[str, tuple[dict[str, str], dict[str, str], tuple[str, ...]]] = {
    "testsuites": ({}, {"name": _TEXT, **_COUNTS}, ("testsuite",)),
    "testsuite": (
        {"name": _TEXT, "tests": _COUNT, "failures": _COUNT, "errors": _COUNT},
        {"time": _TIME, "skipped": _COUNT, "timestamp": _TEXT, "hostname": _TEXT, "id": _TEXT, "package": _TEXT},
        ("properties", "testcase", "system-out", "system-err"),
    ),
    "properties": ({}, {}, ("property",)),
    "property": ({"name": _TEXT, "value": _TEXT}, {}, ()),
    "testcase": ({"name": _TEXT, "classname": _TEXT}, {"time": _TIME, "group": _TEXT}, ("skipped", "failure")),
    "failure": ({}, {"type": _TEXT, "message": _TEXT}, ()),
}


def check(element: xml.Element) -> None:
    """Raise AssertionError where `element` or anything in it breaks the structure, or a count is wrong."""
    required, optional, children = ELEMENTS[element.tag]
    assert set(required) <= set(element.attrib) <= {*required, *optional}, element.attrib
    for name, value in element.attrib.items():
        assert re.fullmatch({**optional, **required}[name], value), (name, value)
    order = [children.index(child.tag) for child in element]
    assert order == sorted(order)
    if element.tag in ("testsuites", "testsuite"):
        assert int(element.attrib["tests"]) == len(list(element.iter("testcase")))
        assert int(element.attrib["failures"]) == len(list(element.iter("failure")))
    for child in element:
        check(child)
