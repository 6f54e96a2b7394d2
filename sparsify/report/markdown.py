"""Tables for a page or a pull request, in GitHub's Markdown.

What a model's author chose, such as the name of a node, must not format, link, mention or embed anything: it is either
code, in which nothing is looked for, or escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sparsify.errors import printable
from sparsify.report.table import Report, Table
from sparsify.report.tables import headline, notes, tables

MOST_BYTES = 60_000  # GitHub takes comments of 65536 characters
_MOST_CELL = 200  # characters: names of nodes are seldom longer, and a table must stay a table
_SIGNS = re.compile(r"([\\*_\[\]<>|!#~&$^{}=])")


def render(report: Report) -> str:
    """The report as GitHub's Markdown."""
    parts = [
        f"# {report['title']}",
        text(headline(report)),
        *(f"## {text(found.title)}\n\n{table(found)}" for found in tables(report)),
        *(f"Note: {text(note)}" for note in notes(report)),
    ]
    return fitted(parts)


def fitted(parts: Sequence[str]) -> str:
    """As many of the parts, in order, as a comment holds; those that do not fit are counted."""
    found: list[str] = []
    room = MOST_BYTES - 200  # for the sentence that counts
    left_out = 0
    for part in filter(None, parts):
        size = len(part.encode(errors="replace")) + 2
        if size > room:
            left_out += 1
            continue
        found.append(part)
        room -= size
    if left_out:
        found.append(f"*{left_out} parts are too long for a comment; the JSON report has them.*")
    return "\n\n".join(found) + "\n"


def table(found: Table, code_columns: Sequence[int] = ()) -> str:
    """A table; the texts of `code_columns` are code."""
    rule = ["--:" if numeric else "---" for numeric in found.numeric]
    rows = [[code(c) if i in code_columns else text(_cut(c)) for i, c in enumerate(row)] for row in found.rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (found.names, rule, *rows))


def code(raw: str) -> str:
    """`raw` as code, in a table too."""
    shown = _cut(printable(raw)).replace("|", "\\|")
    if not shown.strip():
        return ""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    pad = " " if shown[0] == "`" or shown[-1] == "`" else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def text(raw: str) -> str:
    """A sentence: what stands between two backticks is code, all else is what it says."""
    parts = printable(raw).split("`")
    last = len(parts) - 1
    return "".join(code(p) if i % 2 and i < last else _escaped(p) for i, p in enumerate(parts))


def _escaped(part: str) -> str:
    escaped = _SIGNS.sub(r"\\\1", part).replace("://", ":\\/\\/").replace("www.", "www\\.")
    return escaped.replace("@", "@\u200b")  # nobody is mentioned: there is no other escape


def _cut(raw: str) -> str:
    return raw if len(raw) <= _MOST_CELL else f"{raw[: _MOST_CELL // 2]}...{raw[-_MOST_CELL // 2 :]}"
