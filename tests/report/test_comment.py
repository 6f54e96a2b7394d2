"""An audit as a pull request's comment: the verdict first, small whatever the model, inert whatever its names."""

from __future__ import annotations

import copy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from sparsify import api
from sparsify.report import comment, markdown
from sparsify.report.table import Table
from tests import small


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An audit with a broken budget and one that holds."""
    folder = tmp_path_factory.mktemp("comment")
    base, other = small.save(small.mlp(), folder), small.save(small.mlp(seed=7), folder, "other.onnx")
    return api.report_of(base, other, small.save_feed(folder), ["sqnr_db>=-500", "cosine>=0.9"], layers=True, threads=1)


class Reader(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def read(text: str) -> Reader:
    """As a browser has it once GitHub's Markdown became HTML."""
    return Reader(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text))


def test_the_verdict_comes_first_and_what_broke_before_what_holds(found: dict[str, Any]):
    text = comment.render(found)
    lines = [line for line in text.splitlines() if line]
    assert lines[0].startswith("<!-- sparsify-audit ")
    assert lines[1] == "## ❌ Over the budget (1 of 2)"
    assert text.index("`cosine>=0.9`") < text.index("`sqnr_db>=-500.0`")
    shown = read(text)
    assert {"table", "details", "summary", "h2"} <= set(shown.tags)
    assert shown.tags.count("details") == text.count("</details>") >= 4
    assert shown.tags.index("details") > shown.tags.index("table")


def test_a_verdict_of_each_state(found: dict[str, Any]):
    report = copy.deepcopy(found)
    for verdict in report["drift"]["verdicts"]:
        verdict.update(passed=True, state="passed")
    report["drift"]["state"] = "passed"
    assert "## ✅ Inside the budget (2 budgets)" in comment.render(report)
    report["drift"]["verdicts"][0].update(passed=False, state="undecided")
    report["drift"]["state"] = "undecided"
    assert "## ❔ Too few samples to decide (1 of 2)" in comment.render(report)
    report["drift"]["verdicts"] = []
    report["accepted"] = True
    assert "## ℹ️ No budget was set" in comment.render(report)


def test_the_marker_is_the_same_for_the_same_files_whatever_was_found(found: dict[str, Any]):
    other = {**found, "summary": "other", "accepted": not found["accepted"]}
    assert comment.marker(other) == comment.marker(found)
    evil = {**found, "base": {**found["base"], "path": "a--> <b>x"}}
    assert comment.marker(evil).count("--") == 2
    assert comment.marker(evil).count(">") == 1


def test_fits_into_a_comment_whatever_the_model(found: dict[str, Any]):
    report = copy.deepcopy(found)
    drift, layers = report["drift"], report["layers"]
    drift["outputs"] = {f"output {i} " + "🙂|" * 500: next(iter(drift["outputs"].values())) for i in range(300)}
    drift["verdicts"] = [{**drift["verdicts"][1], "output": name, "reason": "🙂|" * 5000} for name in drift["outputs"]]
    drift["notes"] = ["ü|" * 5000] * 300
    report["layers"] = [{**layers[0], "value": str(i), "node": "n" * 10_000} for i in range(5000)]
    report["attribution"]["suspects"] = [str(i) for i in range(10)]
    report["changes"]["operators"] = {"o" * 5000 + str(i): [i, 0] for i in range(500)}
    text = comment.render(report)
    assert len(text.encode()) <= markdown.MOST_BYTES
    assert text.startswith("<!-- sparsify-audit")
    assert "| ❌ broken |" in text
    assert text.count("<details>") == text.count("</details>")


HOSTILE = [
    "<script>alert(1)</script>",
    "</details><img src=x>",
    "![x](http://evil.example/x.png)",
    "[x](javascript:alert(1))",
    "a | b `c` | d",
    "`` ` ``",
    "@someone #1 **bold** _it_",
    "x\n\n# heading",
    "-->",
    "\u202egnp\x1b[31m\x00",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_inert(found: dict[str, Any], name: str):
    report = copy.deepcopy(found)
    plain = read(comment.render(report))
    report["layers"] = [{**row, "node": name, "op": name} for row in report["layers"]]
    report["attribution"]["first"] = name
    report["drift"]["notes"] = [f"`{name}`: {name}"]
    report["drift"]["verdicts"] = [{**v, "output": name, "what": name} for v in report["drift"]["verdicts"]]
    report["changes"]["operators"] = {name: [1, 2]}
    shown = read(comment.render(report))
    formats = {"script", "img", "a", "h1", "strong", "em"}
    assert not formats & set(shown.tags)
    assert shown.tags.count("details") == plain.tags.count("details") + 1  # operators that differ
    assert "\x1b" not in shown.text
    assert "\x00" not in shown.text


@given(st.text(alphabet=st.sampled_from("`|\\<>*_[]()!@#&~ \nab:/"), max_size=30))
def test_any_text_stays_in_its_cell(text: str):
    made = markdown.table(Table("", ("a", "b"), ((text, text),)), code_columns=(0,))
    shown = read(made)
    assert shown.tags.count("td") == 2
    assert set(shown.tags) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}


def test_a_report_of_another_kind_is_tables(tmp_path: Path):
    report = {"kind": "doctor", "title": "t", "summary": "`s` <b>", "facts": {"CPU": "x|y"}}
    assert read(markdown.render(report)).tags.count("td") == 2
