"""The command line: the only place that prints or exits. stdout is data, stderr is talk."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, TextIO

import typer

from sparsify import __version__
from sparsify.cli import audit, bench, bisect, doctor, inspect, optimize, passes
from sparsify.cli.talk import complain
from sparsify.errors import ExitStatus, SparsifyError

INTERRUPTED = 130  # 128 + SIGINT, as shells count
UNREAD = 141  # 128 + SIGPIPE
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
ISSUES = "the project's issue tracker"

# Typer up to 0.2x stands on click, later ones carry a copy of it: what both raise is the base of BadParameter.
_CommandLineError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

app = typer.Typer(
    name="sparsify",
    help="Make ONNX models faster in ordinary onnxruntime, and measure what that does to their answers.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("optimize")(optimize.run)
app.command("audit")(audit.run)
app.command("bisect")(bisect.run)
app.command("inspect")(inspect.run)
app.command("bench")(bench.run)
app.command("passes")(passes.run)
app.command("doctor")(doctor.run)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    """Options of all commands; `main` has read --debug already."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        status = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()  # the interpreter would do it later, where nobody can catch what goes wrong
    except (BrokenPipeError, SystemExit) as stop:
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, BrokenPipeError):
            raise  # not rich's nor Typer's answer to a closed pipe
        return _unread()
    except OSError as error:
        return _full(error)
    return status


def _run(given: list[str]) -> int:
    debug = "--debug" in given
    try:
        status = app([a for a in given if a != "--debug"] or ["--help"], standalone_mode=False, prog_name="sparsify")
        # Later Typers turn Ctrl-C into this status without a word.
        return _interrupted() if status == INTERRUPTED else int(status or ExitStatus.OK)
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return _full(error)
        return _explain(error)
    except KeyboardInterrupt:
        return _interrupted()


def _explain(error: Exception) -> int:
    """Say what went wrong in the one form that all errors have; the exit code."""
    if isinstance(error, _CommandLineError):
        command = getattr(getattr(error, "ctx", None), "command_path", "sparsify")
        complain(f"error: {error.format_message()}\n\nhint: `{command} --help` shows what there is")
        return int(ExitStatus.USAGE)
    if isinstance(error, typer.Abort):
        return _interrupted()
    if isinstance(error, SparsifyError):
        complain(f"error: {error}")
        return int(error.status)
    text = (str(error).strip() or "no message").splitlines()[0]
    complain(
        f"error: {type(error).__name__}: {text}\n\nhint: this is a bug of ours; please run it again with --debug "
        f"and send what it prints to {ISSUES}, with the model if you can"
    )
    return int(ExitStatus.BUG)


def _unread() -> int:
    """Whoever read has read enough, as `head` does: end without a word, as programs do that SIGPIPE ends."""
    _mute(sys.stdout, sys.stderr)
    return UNREAD


def _full(error: OSError) -> int:
    """What was written, on the standard output or into scratch files, found no room."""
    _mute(sys.stdout)
    complain(
        f"error: cannot write: {error.strerror or error}\n\nhint: make room where the standard output, the result and "
        f"scratch files ({tempfile.gettempdir()}) go"
    )
    return int(ExitStatus.USAGE)


def _mute(*streams: TextIO) -> None:
    """Let what is still to be flushed go nowhere: the interpreter would fail at it once more, and exit 120."""
    for stream in streams:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _interrupted() -> int:
    complain("interrupted")
    return INTERRUPTED
