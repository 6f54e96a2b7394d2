"""One report, five forms: each says the same, escapes what it is given, and is written whole."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as xml
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sparsify import report
from sparsify.errors import UsageError
from sparsify.report import units

EVIL = 'a<b> | [red]x[/red] & "q"'


@pytest.fixture
def found() -> dict[str, Any]:
    """A report as `optimize` makes it, with a name that every form must escape and a budget that is broken."""
    timing = {"median_ms": 76.3, "p25_ms": 75.9, "p75_ms": 77.1, "runs": 50}
    return {
        "kind": "optimize",
        "title": "Sparsify: optimize",
        "summary": "refused: over budget",
        "accepted": False,
        "versions": {"sparsify": "0.1", "onnxruntime": "1.31"},
        "machine": {"cpu": "Some CPU"},
        "pipeline": "cleanup,prune{pattern=16:64}",
        "threads": 1,
        "size": {"base": 69_000_000, "candidate": 12_345_678, "ratio": 5.6},
        "latency": {
            "base": timing,
            "candidate": {**timing, "median_ms": 20.5},
            "speedup": 3.72,
            "measured_on": "data",
        },
        "drift": {
            "samples": 32,
            "outputs": {"logits": {"samples": 32, "metrics": {"cosine": {"value": 0.98, "low": 0.97, "high": 0.99}}}},
            "verdicts": [
                {
                    "budget": "cosine>=0.999",
                    "output": "logits",
                    "bound": 0.97,
                    "passed": False,
                    "state": "failed",
                    "what": "too far",
                }
            ],
        },
        "passes": [
            {
                "pass": "prune{pattern=16:64}",
                "seconds": 0.5,
                "changes": 1,
                "refusals": 1,
                "nodes": [100, 90],
                "bytes": [69_000_000, 12_345_678],
            }
        ],
        "nodes": [
            {
                "name": EVIL,
                "shape": [384, 1536],
                "decision": "sparse-int8",
                "format": "sparse-int8",
                "sparsity": 0.75,
                "reason": "now SparseMatMulInt8",
                "dense_ms": 0.725,
                "rewritten_ms": 0.0123,
                "refined": ["fused bias"],
                "drift_share": None,
            },
            {
                "name": "head",
                "shape": None,
                "decision": "left",
                "format": None,
                "sparsity": None,
                "reason": "neither operand is a constant",
                "dense_ms": None,
                "rewritten_ms": None,
                "refined": [],
                "drift_share": None,
            },
        ],
    }


def printed(found: dict[str, Any], width: int = 100) -> str:
    out = io.StringIO()
    report.show(found, Console(file=out, width=width, no_color=True))
    return out.getvalue()


def test_terminal_fits_100_columns_without_colour(found: dict[str, Any]) -> None:
    text = printed(found)
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "\x1b" not in text
    for expected in ("76.3 ms", "12.3 MB", "3.72x", "75.0 %", "384x1536", "BROKEN", "[red]x[/red]"):
        assert expected in text


def test_at_80_columns_names_and_reasons_fold_and_numbers_stay_whole(found: dict[str, Any]) -> None:
    name = "encoder/layer.0/attention/output/dense/MatMul"
    found["nodes"][0].update(name=name, refined=["fused bias and Gelu"])
    found["nodes"].append({**found["nodes"][0], "name": "head", "decision": "left", "reason": "too slow " * 20})
    found["passes"][0]["pass"] = "sparse-int8{min_sparsity=0.25,min_speedup=1.05,threads=16}"
    text = printed(found, width=80)
    assert max(len(line) for line in text.splitlines()) <= 80
    for expected in ("384x1536", "75.0 %", "0.725 ms", "0.0123 ms", "size after", "time", "0.50 s", "bias", "Gelu"):
        assert expected in text
    assert text.count("slow") == 20
    table = text[text.index("Linear layers that were changed") : text.index("Linear layers, left")].splitlines()[4:]
    column = 1 + table[0].index("384x1536")
    assert "".join(line[: column - 4].strip() for line in table).startswith(name)


def test_says_what_a_reader_must_know(found: dict[str, Any], tmp_path: Path) -> None:
    found["drift"]["notes"] = ["`logits`: one sample | only"]
    assert "note: `logits`: one sample | only" in printed(found)
    for suffix, expected in ((".html", "`logits`: one sample | only"), (".md", "`logits`: one sample \\| only")):
        report.write(found, tmp_path / f"r{suffix}")
        assert expected in (tmp_path / f"r{suffix}").read_text()


def test_a_ratio_to_no_error_is_infinite(found: dict[str, Any]) -> None:
    nothing = {"value": None, "low": 30.0, "high": None}
    found["drift"]["outputs"]["logits"] = {"samples": 3, "mismatches": 0, "metrics": {"sqnr_db": nothing}}
    assert "30 to infinite" in printed(found)
    found["drift"]["outputs"]["logits"]["mismatches"] = 1
    assert "undefined" in printed(found)


def test_numbers_are_aligned_to_the_right(found: dict[str, Any]) -> None:
    lines = [line for line in printed(found).splitlines() if " MB" in line and " ms" in line]
    assert len({line.index(" MB") for line in lines}) == 1


def test_json_is_the_report_itself(found: dict[str, Any], tmp_path: Path) -> None:
    report.write(found, tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == found


def test_markdown_keeps_cells_together(found: dict[str, Any], tmp_path: Path) -> None:
    report.write(found, tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| a")]
    assert row.replace("\\|", "").count("|") == 8  # seven cells
    assert "<b>" not in text


def test_html_is_one_page_that_asks_for_nothing(found: dict[str, Any], tmp_path: Path) -> None:
    report.write(found, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()

    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: list[str] = []
            self.text: list[str] = []

        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            self.tags.append(tag)
            assert not {"src", "href", "onclick"} & {name for name, _ in attributes}

        def handle_data(self, data: str) -> None:
            self.text.append(data)

    reader = Reader()
    reader.feed(page)
    assert EVIL in reader.text
    assert not {"script", "link", "img", "b"} & set(reader.tags)
    assert reader.tags.count("table") == len(report.tables(found)) == 6


def test_junit_has_a_failure_for_each_broken_budget(found: dict[str, Any], tmp_path: Path) -> None:
    report.write(found, tmp_path / "r.xml")
    suite = xml.parse(tmp_path / "r.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "2")
    assert [case.get("name") for case in suite.iter("testcase")] == ["verdict", "cosine>=0.999 @ logits"]


@pytest.mark.parametrize("name", ["r.pdf", "r", "absent/r.json"])
def test_refuses_what_could_not_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        report.check(tmp_path / name)
    assert caught.value.hint


def test_a_report_that_cannot_be_made_leaves_the_old_one(found: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.write({**found, "size": float("nan")}, tmp_path / "r.json")
    assert (tmp_path / "r.json").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.0123, "0.0123"),
        (0.725, "0.725"),
        (12.34, "12.3"),
        (123.4, "123"),
        (4567.8, "4568"),
        (1e-9, "0.0000000"),
    ],
)
def test_digits(value: float, text: str) -> None:
    assert units.digits(value) == text


@pytest.mark.parametrize(("value", "text"), [(None, ""), (0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e9, "2.0 GB")])
def test_size(value: float | None, text: str) -> None:
    assert units.size(value) == text
