"""Reports held against the schema that is published with the package."""

from __future__ import annotations

import functools
import importlib.resources
import json
from typing import Any

import jsonschema

FILE = importlib.resources.files("sparsify.report") / "schema" / "report-1.json"


@functools.cache
def validator() -> jsonschema.Draft202012Validator:
    found = json.loads(FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def errors(report: dict[str, Any]) -> list[str]:
    """What is wrong with `report` as JSON has it, each with its place."""
    found = json.loads(json.dumps(report, allow_nan=False))
    return sorted(f"{error.json_path}: {error.message[:300]}" for error in validator().iter_errors(found))


def check(report: dict[str, Any]) -> None:
    """Raise AssertionError where the report is not what the schema says."""
    assert not errors(report), errors(report)
