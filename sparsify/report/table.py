"""The one form that all tables have before they are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Report = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A table ready to be drawn. A column whose name starts with `>` holds numbers: it is aligned to the right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.lstrip(">") for column in self.columns)

    @property
    def numeric(self) -> tuple[bool, ...]:
        return tuple(column.startswith(">") for column in self.columns)
