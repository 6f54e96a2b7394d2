"""Tables for a terminal: readable at 100 columns and without colour."""

from __future__ import annotations

import rich.box
import rich.table
from rich.console import Console
from rich.text import Text

from sparsify.report.tables import Report, Table, headline, tables

NAME_WIDTH = 36  # columns of 100 that a row's name may have before others are given any room


def show(report: Report, console: Console) -> None:
    """Print the report's tables, then what it comes down to."""
    for table in tables(report):
        console.print(drawn(table))
        console.print()
    if sentence := headline(report):
        console.print(Text(sentence))


def drawn(table: Table) -> rich.table.Table:
    """`table` as rich draws it; what is in a cell is never taken for markup."""
    found = rich.table.Table(title=table.title, title_justify="left", box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for index, (name, numeric) in enumerate(zip(table.names, table.numeric, strict=True)):
        longest = max(len(row[index]) for row in table.rows)
        # What a row is about stays readable longest; explanations give way first.
        width = min(longest, NAME_WIDTH) if index == 0 else None
        found.add_column(
            name, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold", min_width=width
        )
    for row in table.rows:
        found.add_row(*map(Text, row))
    return found
