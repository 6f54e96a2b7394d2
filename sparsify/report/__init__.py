"""Reports as terminal tables, JSON, HTML, Markdown and JUnit. Nothing is computed here, only laid out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from sparsify.errors import UsageError
from sparsify.files import check_folder, write_bytes
from sparsify.report import comment, curve, html, junit, markdown
from sparsify.report.table import Report, Table
from sparsify.report.tables import nodes, notes, tables
from sparsify.report.terminal import drawn, show

__all__ = ["FORMATS", "Report", "Table", "check", "drawn", "nodes", "notes", "show", "tables", "write"]


def _json(report: Report) -> str:
    # What is not finite was put into words where it was measured: NaN is not JSON.
    return json.dumps(report, indent=2, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Report], str]] = {
    ".json": _json,
    ".html": html.render,
    ".md": lambda report: (comment if report["kind"] == "audit" else markdown).render(report),
    ".xml": junit.render,
}


DRAWN = {".svg": curve.svg}  # of a frontier


def check(path: Path, suffix: str | None = None, option: str = "--report") -> None:
    """Refuse a report that could not be written, before any work is done.

    Args:
        path: of the file.
        suffix: of the format; that of the file if not given.
        option: that named it, for errors.

    Raises:
        UsageError: an extension that stands for no format, or a folder that does not exist.
    """
    known = FORMATS | DRAWN if option == "--frontier" else FORMATS
    if (suffix or path.suffix.lower()) not in known:
        raise UsageError(
            f"`{path.suffix or path.name}` is not a format of reports",
            where=f"{option} {path}",
            hint=f"use one of {', '.join(known)}",
        )
    if path.is_dir():
        raise UsageError("this is a folder", where=f"{option} {path}", hint="name a file in it")
    check_folder(path, f"{option} {path}")


def write(report: Report, path: Path, suffix: str | None = None) -> None:
    """Write the report, the whole of it or nothing, in the format of `suffix` or else of the file's extension."""
    check(path, suffix, "--frontier" if report["kind"] == "frontier" else "--report")
    text = (FORMATS | DRAWN)[suffix or path.suffix.lower()](report)
    write_bytes(path, text.encode(errors="backslashreplace"))  # a file's name may be no Unicode
