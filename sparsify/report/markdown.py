"""Tables for a page or a pull request."""

from __future__ import annotations

from sparsify.report.table import Report, Table
from sparsify.report.tables import headline, notes, tables


def render(report: Report) -> str:
    """The report as GitHub's Markdown."""
    parts = [
        f"# {report['title']}",
        headline(report),
        *map(_table, tables(report)),
        *(f"Note: {_cell(note)}" for note in notes(report)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(table: Table) -> str:
    rule = ["--:" if numeric else "---" for numeric in table.numeric]
    lines = [_row(table.names), _row(rule), *(_row(row) for row in table.rows)]
    return f"## {table.title}\n\n" + "\n".join(lines)


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(_cell(c) for c in cells) + " |"


def _cell(text: str) -> str:
    """`text` so that it neither ends the cell nor starts HTML."""
    for sign, escaped in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("\n", " ")):
        text = text.replace(sign, escaped)
    return text
