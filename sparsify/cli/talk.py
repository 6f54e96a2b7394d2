"""Talk on stderr: messages and progress. What is slow to import is imported when there is something to show."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from sparsify.report import Report, Table

Listener = Callable[[int, int, str], None]  # steps done, steps in all, what is under way
PLAIN_WIDTH = 100  # columns of tables where there is no terminal to ask


def complain(text: str) -> None:
    """Print an error; always, even when told to be quiet."""
    print(text, file=sys.stderr)


def say(text: str, *, quiet: bool) -> None:
    """Print a message unless told to be quiet."""
    if not quiet:
        print(text, file=sys.stderr)


def check(files: Sequence[Path] | None, junit: Path | None = None) -> None:
    """Refuse report files that could not be written, before any work is done."""
    from sparsify import report as reports

    for file in files or ():
        reports.check(file)
    if junit is not None:
        reports.check(junit, ".xml", "--junit")


def deliver(
    report: Report, files: Sequence[Path] | None = None, junit: Path | None = None, seconds: float = 0.0
) -> None:
    """Write a report into each of the files, then print its tables on stdout: whoever reads may stop reading.

    `seconds` is how long the work took; only JUnit's file says it.
    """
    from sparsify import report as reports

    for file in files or ():
        reports.write(report, file)
    if junit is not None:
        reports.write({**report, "seconds": seconds}, junit, ".xml")
    reports.show(report, _console())


def show_table(table: Table) -> None:
    """Print one table on stdout."""
    from sparsify import report as reports

    console = _console()
    console.print(reports.drawn(table, console.width))


@contextlib.contextmanager
def progress(*, quiet: bool) -> Iterator[Listener]:
    """A bar on stderr with the time its step still needs, gone when done; nothing where stderr is no terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield _silence
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    what = TextColumn("{task.description}", markup=False)
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(what, BarColumn(), MofNCompleteColumn(), *times, console=console, transient=True) as bar:
        task = bar.add_task("load", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)


def _silence(done: int, total: int, what: str) -> None:
    """Tell nobody."""


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
