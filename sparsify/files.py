"""Files that are there as a whole or not at all, whatever stops us and whoever writes beside us.

What is written goes into a scratch folder beside its destination, is flushed to the disk, and takes its name in one
step. A scratch folder is locked while it is in use, so that one whose writer was killed can be told and removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sparsify.errors import UsageError

if sys.platform != "win32":
    import fcntl

_SUFFIX = ".part"  # of scratch folders, so that they cannot be taken for anybody else's
_ABANDONED_S = 60.0  # a scratch folder younger than this may belong to a writer that is just about to lock it


@contextlib.contextmanager
def replacing(path: Path, then: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """A folder beside `path` to write into; what stands in it at the end takes its place beside `path`.

    The file called like `path` comes last: what it refers to is there when it is. Then `then` is called. Several
    writers take turns from the first file to the end of `then`.

    Raises:
        UsageError: something cannot be written.
    """
    _check_kind(path, str(path))
    try:
        _remove_abandoned(path)
        with _scratch(path) as folder:
            yield folder
            written = sorted(folder.iterdir(), key=lambda file: file.name == path.name)
            for file in written:
                _sync(file)
            with _exclusive(path.parent):
                for file in written:
                    os.replace(file, path.parent / file.name)
                    _sync(path.parent)
                then()
    except OSError as error:
        hint = "choose another place for it" if path.parent.is_dir() else "make its folder first"
        raise UsageError(f"cannot write: {error.strerror or error}", where=str(path), hint=hint) from error


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A folder to write into that takes the name `path` at the end; a folder that had it is removed.

    Raises:
        UsageError: something cannot be written.
    """
    try:
        _remove_abandoned(path)
        with _scratch(path) as scratch:
            new = scratch / "new"
            new.mkdir()
            yield new
            for file in sorted(new.rglob("*")):
                _sync(file)
            with _exclusive(path.parent):
                if path.exists():
                    os.rename(path, scratch / "old")
                os.rename(new, path)
                _sync(path.parent)
    except OSError as error:
        hint = "choose another place for it" if path.parent.is_dir() else "make its folder first"
        raise UsageError(f"cannot write: {error.strerror or error}", where=str(path), hint=hint) from error


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Nobody else holds this folder meanwhile. Where a file system knows no locks, nobody is kept out."""
    with _opened(folder) as handle:
        _lock(handle, wait=True)
        yield


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file that is there as a whole or not at all.

    Raises:
        UsageError: it cannot be written.
    """
    with replacing(path) as folder:
        (folder / path.name).write_bytes(data)


def check_folder(file: Path, where: str) -> None:
    """Say before the work, not after it, that `file` could not be written.

    Raises:
        UsageError: there is no such folder, nothing may be written there, or a device or pipe has the name.
    """
    _check_kind(file, where)
    folder = file.absolute().parent
    if not folder.is_dir():
        raise UsageError("the folder does not exist", where=where, hint="make it first")
    if not os.access(folder, os.W_OK):
        raise UsageError("the folder may not be written to", where=where, hint="choose another place for it")


def _check_kind(file: Path, where: str) -> None:
    """A new file takes the place of an old one; whoever may do so would put it in the place of /dev/null, too."""
    if file.exists() and not (file.is_file() or file.is_dir()):
        raise UsageError("this is a device or a pipe, not a file to replace", where=where, hint="name a regular file")


@contextlib.contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    made = tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=_SUFFIX, dir=path.parent)
    with made as folder, _exclusive(Path(folder)):
        yield Path(folder)


def _remove_abandoned(path: Path) -> None:
    """Remove what killed writers of `path` left: scratch folders that nobody holds."""
    for folder in path.parent.iterdir():
        if not (folder.name.startswith(f".{path.name}.") and folder.name.endswith(_SUFFIX)):
            continue
        with contextlib.suppress(OSError), _opened(folder) as handle:
            if time.time() - folder.stat().st_mtime > _ABANDONED_S and _lock(handle, wait=False):
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int | None]:
    """The folder as something to lock; Windows does not open folders."""
    if sys.platform == "win32":
        yield None
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _lock(handle: int | None, *, wait: bool) -> bool:
    """Lock until it is closed, by us or by our death; whether it is ours now."""
    if handle is None or sys.platform == "win32":
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _sync(path: Path) -> None:
    """Have the bytes, or a folder's names, on the disk: a power cut must not leave a name without its bytes."""
    if path.is_dir() and sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
