"""sparsify bench"""

from __future__ import annotations

from typing import Annotated

import typer

from sparsify.cli import options, talk


def run(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="The .onnx files; the first is compared with.", show_default=False),
    ],
    data: options.Data = None,
    tokenizer: options.Tokenizer = None,
    preprocess: options.Preprocess = None,
    trust_data: options.TrustData = False,
    threads: options.Threads = None,
    reports: options.Reports = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Measure latency and size of models side by side: interleaved, in one process."""
    from sparsify import api

    talk.check(reports)
    with talk.progress(quiet=quiet) as listener:
        found = api.compare(
            models,
            data,
            threads=threads,
            seed=seed,
            reading=options.reading(tokenizer, preprocess, trust_data),
            progress=lambda done, total: listener(done, total, "bench"),
        )
    talk.deliver(found, reports)
