"""Tables for a terminal: readable at 80 columns and without colour."""

from __future__ import annotations

import rich.box
import rich.table
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from sparsify.report.table import Report, Table
from sparsify.report.tables import headline, notes, tables

_GAP, _EDGES = 3, 2  # columns between two cells, and around a row, as SIMPLE_HEAD draws them
_PROSE = 24  # columns that an explanation keeps as long as the name of its row can give way


def show(report: Report, console: Console) -> None:
    """Print the report's tables, what a reader must know of them, and what it all comes down to."""
    for table in tables(report):
        console.print(drawn(table, console.width))
        console.print()
    for note in notes(report):
        console.print(Text(f"note: {note}"))
    if sentence := headline(report):
        console.print(Text(sentence))


def drawn(table: Table, width: int) -> rich.table.Table:
    """`table` as rich draws it in `width` columns; what is in a cell is never taken for markup."""
    found = rich.table.Table(title=table.title, title_justify="left", box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for name, numeric, columns in zip(table.names, table.numeric, _widths(table, width), strict=True):
        found.add_column(name, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold", width=columns)
    for row in table.rows:
        found.add_row(*map(Text, row))
    return found


def _widths(table: Table, width: int) -> list[int]:
    """Columns for each column. Numbers are never cut: explanations give way first, then names, both by folding."""
    cells = list(zip(table.names, *table.rows, strict=True))
    wanted = [max(map(cell_len, column)) for column in cells]
    excess = sum(wanted) + _GAP * (len(wanted) - 1) + _EDGES - width
    texts = [index for index, numeric in enumerate(table.numeric) if not numeric]
    for floor in (_PROSE, 0):
        for index in reversed(texts):
            least = max(floor, _longest_word(cells[index]) if index else 0, cell_len(table.names[index]))
            give = max(0, min(excess, wanted[index] - least))
            wanted[index] -= give
            excess -= give
    return wanted


def _longest_word(cells: tuple[str, ...]) -> int:
    """Columns of the longest word, up to what is folded anyway."""
    return min(_PROSE, max((cell_len(word) for cell in cells for word in cell.split()), default=0))
