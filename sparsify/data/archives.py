"""Feeds from NumPy's files: an `.npz` has an array for each input, an `.npy` is the model's only input.

What a file declares is held against its size before room is made for it: a few bytes can claim to be terabytes. An
array of Python objects is a pickle, and a pickle runs code when it is read.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from sparsify.data.feeds import Array, Feed, FileFeed, TensorSpec
from sparsify.data.reading import Meter
from sparsify.errors import InputError

SUFFIXES = (".npz", ".npy")
HINT = "save plain arrays, keyed by input name, with numpy.savez"
_SUFFIX = ".npy"  # of arrays in an `.npz`
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# What a damaged file makes zipfile and NumPy raise; RuntimeError is for encryption.
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


def read(
    path: Path, specs: Sequence[TensorSpec] | None = None, meter: Meter | None = None, *, trust: bool = False
) -> Feed:
    """The feed in the file at `path`.

    Args:
        path: of a regular file.
        specs: what the model takes; without them an `.npy` means nothing.
        meter: counts the arrays; those of this file alone, if not given.
        trust: unpickle objects.

    Raises:
        InputError: not such a file, damaged, too large, or objects that nobody trusts.
    """
    meter = meter or Meter(str(path))
    with _opened(path) as file:
        start = file.read(len(np.lib.format.MAGIC_PREFIX))
        file.seek(0)
        if start == np.lib.format.MAGIC_PREFIX:
            name = _only_input(specs, path)
            return FileFeed({name: _array(file, path.stat().st_size, name, path, meter, trust)}, path)
        try:
            archive = zipfile.ZipFile(file)
        except _UNREADABLE as error:
            raise InputError("this is not an `.npz`, or it is damaged", where=str(path), hint=HINT) from error
        with archive:
            return FileFeed(dict(_arrays(archive, path, meter, trust)), path)


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), hint=HINT) from error


def _arrays(archive: zipfile.ZipFile, path: Path, meter: Meter, trust: bool) -> list[tuple[str, Array]]:
    found = []
    for member in archive.infolist():
        key = member.filename.removesuffix(_SUFFIX)
        try:
            with archive.open(member) as file:
                found.append((key, _array(file, member.file_size, key, path, meter, trust)))
        except _UNREADABLE as error:
            raise _unreadable(key, path, error) from error
    return found


def _array(file: IO[bytes], size: int, key: str, path: Path, meter: Meter, trust: bool) -> Array:
    """The array in `file`, which has `size` bytes."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"it has version {version} of the format, which structured types need")
        shape, _, dtype = _HEADERS[version](file)
        if dtype.hasobject:
            _check_trust(key, path, trust)
            meter.take(size)
        else:
            meter.take(math.prod(shape) * dtype.itemsize)
            if math.prod(shape) * dtype.itemsize != size - file.tell():
                raise ValueError("its size is not what its shape and type need")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=trust)
    except _UNREADABLE as error:
        raise _unreadable(key, path, error) from error
    except InputError:
        raise
    except Exception as error:  # unpickling was allowed, and can raise anything
        raise _unreadable(key, path, error) from error


def _check_trust(key: str, path: Path, trust: bool) -> None:
    if not trust:
        raise InputError(
            f"key `{key}` holds Python objects, and unpickling those runs code that stands in the file",
            where=str(path),
            hint="save plain arrays; if you trust whoever made the file, --trust-data reads it",
        )


def _unreadable(key: str, path: Path, error: Exception) -> InputError:
    return InputError(f"key `{key}` cannot be read: {error or type(error).__name__}", where=str(path), hint=HINT)


def _only_input(specs: Sequence[TensorSpec] | None, path: Path) -> str:
    if specs is None or len(specs) != 1:
        takes = "its input is not known" if specs is None else f"the model takes {len(specs)}"
        raise InputError(f"a single array without a name, and {takes}", where=str(path), hint=HINT)
    return specs[0].name
