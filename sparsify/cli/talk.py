"""Talk on stderr: messages and progress."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sparsify import report as reports
from sparsify.pipeline.run import Progress as Listener
from sparsify.pipeline.run import silence

PLAIN_WIDTH = 100  # columns of tables where there is no terminal to ask


def complain(text: str) -> None:
    """Print an error; always, even when told to be quiet."""
    print(text, file=sys.stderr)


def say(text: str, *, quiet: bool) -> None:
    """Print a message unless told to be quiet."""
    if not quiet:
        print(text, file=sys.stderr)


def show(report: reports.Report) -> None:
    """Print a report's tables on stdout."""
    reports.show(report, _console())


def show_table(table: reports.Table) -> None:
    """Print one table on stdout."""
    _console().print(reports.drawn(table))


@contextlib.contextmanager
def progress(*, quiet: bool) -> Iterator[Listener]:
    """A bar on stderr, gone when it is done; nothing where stderr is no terminal."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield silence
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
