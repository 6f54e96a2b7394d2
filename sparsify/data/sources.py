"""What `--data` takes, as feeds."""

from __future__ import annotations

from glob import glob, has_magic
from pathlib import Path

from sparsify.data import archives
from sparsify.data.feeds import Feed
from sparsify.errors import InputError


def load(spec: str | Path) -> list[Feed]:
    """Feeds from a `.npz` (one feed, keys are input names), or from a folder or a glob of them, sorted by name.

    Raises:
        InputError: nothing there, or a file that is not an `.npz` of plain arrays.
    """
    return [archives.read(path) for path in _files(Path(spec))]


def _files(spec: Path) -> list[Path]:
    if spec.is_file():
        return [spec]
    if spec.is_dir():
        found = sorted(spec.glob("*.npz"))
    elif has_magic(str(spec)):
        found = sorted(Path(p) for p in glob(str(spec), recursive=True) if Path(p).is_file())
    else:
        raise InputError("no such file or folder", where=str(spec), hint="data is a `.npz`, a folder or a glob of them")
    if not found:
        raise InputError("there is no `.npz` here", where=str(spec), hint="save feeds with numpy.savez")
    return found
