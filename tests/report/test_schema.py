"""The published schema: it names every key, is in the documentation's words, and each kind of report keeps to it.

That all reports of all tests keep to it is checked by a fixture in tests/conftest.py.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sparsify.api import facts
from tests import small
from tests.cli import INT8
from tests.report import schema

KINDS = {"optimize", "audit", "bisect", "bench", "inspect", "doctor"}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """One real report of each kind, through the command line."""
    from sparsify.cli import main

    folder = tmp_path_factory.mktemp("reports")
    model, data = small.save(small.mlp(), folder), small.save_feed(folder)
    commands: dict[str, list[object]] = {
        "optimize": [model, *INT8, "--data", data, "--budget", "cosine>=0.5", "-o", folder / "out.onnx"],
        "audit": [model, folder / "out.onnx", "--data", data, "--layers", "--budget", "cosine>=0.5"],
        "bisect": [model, folder / "out.onnx", "--data", data, "--budget", "cosine>=0.5"],
        "bench": [model, folder / "out.onnx", "--threads", 1],
        "inspect": [model, "--rows", 4, "--threads", 1, "--sensitivity", "--data", data],
        "doctor": [],
    }
    reports = {}
    for kind, arguments in commands.items():
        file = folder / f"{kind}.json"
        assert main([kind, *map(str, arguments), "--report", str(file), "--quiet"]) == 0
        reports[kind] = json.loads(file.read_text())
    return reports


def test_every_kind_keeps_to_it(found: dict[str, dict[str, Any]]):
    # A frontier takes a minute: tests of it are held against the schema like all others.
    assert set(found) | {"frontier"} == set(schema.validator().schema["properties"]["kind"]["enum"])
    for kind, report in found.items():
        assert report["kind"] == kind
        assert report["schema"] == facts.SCHEMA
        assert schema.errors(report) == [], kind


def objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(part)


# Objects whose keys are names that models, machines and people choose.
OPEN = ("facts", "versions", "caches", "outputs", "metrics", "opsets", "operators", "stamp", "shapes", "plan")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_key_that_it_does_not_name_is_an_error(found: dict[str, dict[str, Any]], kind: str):
    """In every object of a real report but those whose keys are anybody's."""
    report = copy.deepcopy(found[kind])
    anybodys = [id(o[key]) for o in objects(report) for key in OPEN if isinstance(o.get(key), dict)]
    places = [o for o in objects(report) if id(o) not in anybodys]
    assert places
    for place in places:
        place["new"] = 1
        assert schema.errors(report), place
        del place["new"]
    assert schema.errors(report) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r.pop("accepted"),
        lambda r: r.update(schema="sparsify/report-2"),
        lambda r: r.update(kind="other"),
        lambda r: r["drift"].update(verdicts=None),
        lambda r: r["base"].update(sha256="abc"),
    ],
)
def test_what_it_does_not_allow_is_an_error(found: dict[str, dict[str, Any]], spoil: Callable[[dict[str, Any]], None]):
    report = copy.deepcopy(found["audit"])
    spoil(report)
    assert schema.errors(report)


def test_the_documentation_has_every_key(root: Path):
    """Of audits, whose readers are programs of others."""
    documented = (root / "docs" / "reports.md").read_text()
    definitions = schema.validator().schema["$defs"]
    for name in ("audit", "drift", "verdict", "output", "per_sample", "sample", "layer", "attribution", "changes"):
        missing = {key for key in definitions[name]["properties"] if f"`{key}`" not in documented}
        assert not missing, name
