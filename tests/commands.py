"""A shell in which `sparsify` is a command, for tests that run scripts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.conftest import ROOT


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Variables with which a process finds this checkout's `sparsify` and this Python; `folder` gets a `bin/`."""
    bin_ = folder / "bin"
    bin_.mkdir(exist_ok=True)
    command = bin_ / "sparsify"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sparsify "$@"\n')
    command.chmod(0o755)
    return {
        **os.environ,
        "PATH": os.pathsep.join((str(bin_), str(Path(sys.executable).parent), os.environ["PATH"])),
        "PYTHONPATH": str(ROOT),  # works in a checkout that is not installed, too
        "SPARSIFY_CACHE": str(folder / "cache"),
        "NO_COLOR": "1",
        "COLUMNS": "200",
        **more,
    }
