"""sparsify inspect"""

from __future__ import annotations

from typing import Annotated

import typer

from sparsify.cli import options, talk


def run(
    model: options.Model,
    sensitivity: Annotated[
        bool,
        typer.Option("--sensitivity", help="Prune each layer alone, measure how far the model drifts; needs --data."),
    ] = False,
    data: options.Data = None,
    tokenizer: options.Tokenizer = None,
    preprocess: options.Preprocess = None,
    trust_data: options.TrustData = False,
    memory: options.Memory = None,
    threads: options.Threads = None,
    rows: options.Rows = None,
    parallel: options.Parallel = None,
    reports: options.Reports = None,
    quiet: options.Quiet = False,
) -> None:
    """Say what is prunable, what already is sparse, and what would be gained."""
    from sparsify import api

    talk.check(reports)
    with talk.progress(quiet=quiet) as listener:
        found = api.inspect(
            model,
            data,
            sensitivity=sensitivity,
            memory=memory,
            threads=threads,
            rows=rows,
            parallel=parallel,
            reading=options.reading(tokenizer, preprocess, trust_data),
            progress=listener,
        )
    talk.deliver(found, reports)
