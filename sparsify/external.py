"""Which files a model may make us read: data files in its own folder, and nothing else.

A tensor's external data is a location, an offset and a length, all of them text that whoever wrote the model chose.
The policy (docs/security.md): the location is relative and does not climb; what it names is a regular file with one
name, inside the model's folder after all links are followed, or a blob of the Hugging Face cache that the model's
snapshot links to; offset and length lie inside the file, and the length is what shape and type need.
"""

from __future__ import annotations

import stat
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx

from sparsify.errors import InputError
from sparsify.tensors import nbytes

_KEYS = {"location", "offset", "length", "checksum"}
_LONGEST = 1024  # characters of a location: what macOS takes; Linux takes 4096
_PREPACKED = "prepacked_"  # onnxruntime's own, and only for itself


def check(tensor: onnx.TensorProto, where: str, folder: Path | None) -> Path:
    """The file that holds `tensor`, links followed.

    Args:
        tensor: one whose data is external.
        where: the model, for people.
        folder: of the model; None when it came from memory.

    Raises:
        InputError: the policy forbids it, or the file does not hold what it should.
    """
    location, offset, length = _entries(tensor, where)
    if folder is None:
        raise InputError(
            f"tensor `{tensor.name}` is kept in the file `{location}`, and nobody said in which folder",
            where=where,
            hint="give the path of the model instead of its bytes",
        )
    file = resolve(location, folder, where, tensor.name)
    needed = nbytes(tensor)
    if length is not None and length != needed:
        raise InputError(
            f"tensor `{tensor.name}` has {length} bytes of external data, its shape and type need {needed}", where=where
        )
    if offset + needed > file.stat().st_size:
        raise InputError(f"its data file `{location}` is cut short", where=where, hint="download it again")
    return file


def resolve(location: str, folder: Path, where: str, name: str) -> Path:
    """The file that `location` names in `folder`, links followed; raises InputError where the policy forbids it."""

    def refuse(why: str, hint: str = "put the data file beside the model") -> InputError:
        return InputError(f"tensor `{name}` is kept in `{location}`, {why}", where=where, hint=hint)

    if not location or "\0" in location or len(location) > _LONGEST:
        raise refuse("which names no file")
    if PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor or "\\" in location:
        raise refuse("outside the model's folder", "a location is relative, with forward slashes")
    if ".." in PurePosixPath(location).parts:
        raise refuse("outside the model's folder", "a location does not climb with `..`")
    path = folder / location
    try:
        file = path.resolve(strict=True)
        found = file.stat()
    except (OSError, RuntimeError):  # Python before 3.13 raises RuntimeError for links in a circle
        raise InputError(f"its data file `{location}` is missing", where=where, hint="put it beside it") from None
    if not file.is_relative_to(folder.resolve()) and not _is_blob(path, file, folder):
        raise refuse("outside the model's folder", "links may not lead out of it, save into a Hugging Face cache")
    if not stat.S_ISREG(found.st_mode):
        raise refuse("which is no regular file")
    if found.st_nlink > 1:
        raise refuse("which has a second name on the disk (a hard link)", "copy the file instead")
    return file


def _is_blob(link: Path, file: Path, folder: Path) -> bool:
    """Whether `link` is in a snapshot of the Hugging Face cache and `file` in the blobs of the same repository.

    models--OWNER--NAME/snapshots/REVISION/[folders/]file -> models--OWNER--NAME/blobs/DIGEST
    """
    for revision in (folder, *folder.parents):
        if revision.parent.name == "snapshots":
            repository = revision.parent.parent
            return link.is_relative_to(revision) and file.parent == (repository / "blobs").resolve()
    return False


def _entries(tensor: onnx.TensorProto, where: str) -> tuple[str, int, int | None]:
    """(location, offset, length if given) of a tensor, each key once."""
    found: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key in found or (entry.key not in _KEYS and not entry.key.startswith(_PREPACKED)):
            raise InputError(f"tensor `{tensor.name}` has external data with an odd key `{entry.key}`", where=where)
        found[entry.key] = entry.value
    numbers = {key: found[key] for key in ("offset", "length") if key in found}
    for key, text in numbers.items():
        if not (text.isascii() and text.isdigit() and len(text) < 20):  # 2^63 has 19 digits
            raise InputError(f"tensor `{tensor.name}` has external data with {key} `{text}`", where=where)
    length = numbers.get("length")
    return found.get("location", ""), int(numbers.get("offset", 0)), None if length is None else int(length)
