"""sparsify bisect"""

from __future__ import annotations

from typing import Annotated

import typer

from sparsify.cli import options, talk
from sparsify.errors import ExitStatus


def run(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The model that is right.", show_default=False)],
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="A model made from it.", show_default=False)],
    data: Annotated[
        str,
        typer.Option("--data", metavar="DATA", help="A .npz feed, or a folder or glob of them.", show_default=False),
    ],
    budget: options.Budgets = None,
    reports: options.Reports = None,
    threads: options.Threads = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> int:
    """Find the smallest sets of changed nodes that break a budget. Exits 1 when the candidate breaks it."""
    from sparsify import api

    talk.check(reports)
    with talk.progress(quiet=quiet) as listener:
        found = api.bisection_of(base, candidate, data, budget or (), seed=seed, threads=threads, progress=listener)
    talk.deliver(found, reports)
    return int(ExitStatus.OK if found["accepted"] else ExitStatus.REFUSED)
