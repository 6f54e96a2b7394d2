"""Feeds from NumPy's files."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from sparsify.data.feeds import Feed, FileFeed
from sparsify.errors import InputError

# What an `.npz` that is damaged, or holds Python objects, makes NumPy raise.
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def read(path: Path) -> Feed:
    hint = "save plain arrays, keyed by input name, with numpy.savez"
    try:
        archive = np.load(path, allow_pickle=False)  # a pickle runs code when it is read
    except _UNREADABLE as error:
        raise InputError("this is not an `.npz`, or it is damaged", where=str(path), hint=hint) from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise InputError("a single array, not an `.npz` with keys", where=str(path), hint=hint)
    arrays = {}
    with archive:
        for key in archive.files:
            try:
                arrays[key] = archive[key]
            except _UNREADABLE as error:
                why = "it holds Python objects" if "pickle" in str(error) else str(error)
                raise InputError(f"key `{key}` cannot be read: {why}", where=str(path), hint=hint) from error
    return FileFeed(arrays, path)
