"""sparsify doctor"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsify.cli import options, talk
from sparsify.errors import UsageError


def run(
    profile: Annotated[
        Path | None,
        typer.Option(
            "--profile",
            metavar="FILE",
            show_default=False,
            help="Time the forms of layers and write that, for `optimize --costs` elsewhere.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", show_default=False, help="Whose layers to profile.")
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option("--shape", metavar="KxN", show_default=False, help="Of a layer to profile. May be repeated."),
    ] = None,
    data: options.Data = None,
    rows: options.Rows = None,
    threads: options.Threads = None,
    effort: options.Effort = 1,
    reports: options.Reports = None,
    quiet: options.Quiet = False,
) -> None:
    """Say what will run on this machine, and how fast."""
    from sparsify import api

    talk.check(reports)
    if profile is None and any((model, shapes, data, rows)):
        raise UsageError("only a profile has layers", where="doctor", hint="--profile FILE writes one")
    sizes = [_shape(text) for text in shapes or ()]
    if profile is not None:
        from sparsify.files import check_folder

        check_folder(profile, f"--profile {profile}")
    with talk.progress(quiet=quiet) as listener:
        listener(0, 1, "measure")
        if profile is None:
            found = api.examine()
        else:
            found = api.profile(
                profile, model, sizes, data, rows=rows, threads=threads, effort=effort, progress=listener
            )
    talk.deliver(found, reports)


def _shape(text: str) -> tuple[int, int]:
    k, _, n = text.partition("x")
    if not (k.isdigit() and n.isdigit() and int(k) and int(n)):
        raise UsageError(f"`{text}` is no shape", where="--shape", hint="KxN, such as 384x1536")
    return int(k), int(n)
