"""sparsify doctor"""

from __future__ import annotations

from sparsify.cli import options, talk


def run(reports: options.Reports = None, quiet: options.Quiet = False) -> None:
    """Say what will run on this machine, and how fast."""
    from sparsify import api

    talk.check(reports)
    with talk.progress(quiet=quiet) as listener:
        listener(0, 1, "measure")
        found = api.examine()
    talk.deliver(found, reports)
