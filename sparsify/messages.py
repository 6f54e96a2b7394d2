"""Bytes of a file as an ONNX message, or a sentence that says why they are none."""

from __future__ import annotations

import stat
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]

from sparsify.errors import InputError


def read(path: Path) -> bytes:
    """The bytes of a file. Raises InputError where it is none, or larger than a message may be."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise InputError("this is no regular file", where=str(path), hint="name the .onnx file")
        if found.st_size >= 2**31:
            raise InputError(
                f"the file has {found.st_size} bytes, more than the 2 GiB that ONNX allows",
                where=str(path),
                hint="export it with external data",
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError("there is no such file", where=str(path), hint="check the path of the model") from None
    except IsADirectoryError:
        raise InputError("this is a folder, not a model", where=str(path), hint="name the .onnx file in it") from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error


def parse(data: bytes, where: str) -> onnx.ModelProto:
    """The message in `data`. Raises InputError about `where`."""
    if not data:
        raise InputError("the file is empty", where=where, hint="export or download the model again")
    try:
        return onnx.load_model_from_string(data)
    except DecodeError:
        # Every exporter writes the IR version, field 1, first: its tag is 8.
        cut = data[0] == 8
        raise InputError(
            "the ONNX file is cut short or damaged" if cut else "this is not an ONNX model",
            where=where,
            hint="export or download the model again" if cut else "sparsify reads .onnx files",
        ) from None
