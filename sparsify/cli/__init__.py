"""The command line: the only place that prints or exits. stdout is data, stderr is talk."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, NoReturn

import click
import typer

from sparsify import __version__
from sparsify.cli import audit, bench, doctor, inspect, optimize, passes
from sparsify.cli.talk import complain
from sparsify.errors import ExitStatus, SparsifyError

INTERRUPTED = 130  # 128 + SIGINT, as shells count
ISSUES = "the project's issue tracker"

app = typer.Typer(
    name="sparsify",
    help="Make ONNX models faster in ordinary onnxruntime, and measure what that does to their answers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("optimize")(optimize.run)
app.command("audit")(audit.run)
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
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        status = app([a for a in given if a != "--debug"], standalone_mode=False, prog_name="sparsify")
        return int(status or ExitStatus.OK)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return int(ExitStatus.USAGE)
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return _closed_pipe()
    except SparsifyError as error:
        if debug:
            traceback.print_exc()
        complain(f"error: {error}")
        return int(error.status)
    except Exception as error:
        if debug:
            traceback.print_exc()
        text = (str(error).strip() or "no message").splitlines()[0]
        complain(
            f"error: {type(error).__name__}: {text}\n\nhint: this is a bug of ours; please run it again with --debug "
            f"and send what it prints to {ISSUES}, with the model if you can"
        )
        return int(ExitStatus.BUG)
