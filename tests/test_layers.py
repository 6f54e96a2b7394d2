"""The floors: each file imports only those below it (docs/architecture.md)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECK = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contract of pyproject.toml in `folder`, in a process that imports `sparsify` from there."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", CHECK], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_imports_keep_to_the_floors(root: Path):
    done = lint(root)
    assert done.returncode == 0, done.stdout + done.stderr
