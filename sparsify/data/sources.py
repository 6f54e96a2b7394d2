"""What `--data` takes, as feeds.

    FILE.npz   FILE.npy   FOLDER   'FOLDER/*.npz'      arrays; see `archives`
    text:FILE[,batch=N][,length=N][,limit=N]           lines of text; see `text`
    images:FOLDER[,batch=N][,limit=N]                  pictures; see `images`
    MODULE:FUNCTION[,limit=N]                          a Python function that yields feeds; see `generators`

A file whose name looks like one of the others is meant by `./NAME`; `python:MODULE:FUNCTION` is always a function.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from sparsify.data import archives, generators, images, text
from sparsify.data.feeds import Feed, specs_of
from sparsify.data.reading import Meter, Reading
from sparsify.errors import InputError, UsageError

_KINDS: dict[str, tuple[str, ...]] = {  # the options of each
    "text": ("batch", "length", "limit"),
    "images": ("batch", "limit"),
    "python": ("limit",),
}
_OPTION = re.compile(r",(?P<key>[a-z_]+)=(?P<value>[^,]*)$")
_FUNCTION = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*(,limit=[^,]*)?")
_HINT = "data is an `.npz`, a folder or a glob of them, text:FILE, images:FOLDER or MODULE:FUNCTION"


def load(spec: str | Path, inputs: Iterable[Any] | None = None, reading: Reading | None = None) -> list[Feed]:
    """The feeds that `spec` means (see the top of this file), in the order of files, lines or the function.

    Args:
        spec: a `Path` is always a file, a folder or a glob.
        inputs: what the model takes (see `check`); needed by all but `.npz` and functions.
        reading: what else is needed, and what is allowed.

    Raises:
        InputError: nothing there, something that cannot be read, or more than half of the memory.
        UsageError: an option that makes no sense, or what is needed beside `spec` is missing.
    """
    reading = reading or Reading()
    specs = None if inputs is None else specs_of(inputs)
    meter = Meter(str(spec))
    kind, rest = _kind(str(spec)) if isinstance(spec, str) else ("", "")
    if not kind:
        return [archives.read(path, specs, meter, trust=reading.trust) for path in _files(Path(spec))]
    name, options = _options(rest, kind)
    if kind == "python":
        return generators.read(name, meter, limit=options.get("limit"))
    if specs is None:
        raise UsageError("the inputs of the model must be known", where=str(spec), hint="pass inputs=")
    read: Callable[..., list[Feed]] = text.read if kind == "text" else images.read
    return read(name, specs, reading, meter, **options)


def _kind(spec: str) -> tuple[str, str]:
    """What kind of source `spec` is, and the rest of it; empty for files."""
    kind, colon, rest = spec.partition(":")
    if colon and kind in _KINDS:
        return kind, rest
    if _FUNCTION.fullmatch(spec) and not Path(spec).exists():
        return "python", spec
    return "", ""


def _options(rest: str, kind: str) -> tuple[str, Mapping[str, int]]:
    """`NAME,key=3` as a name and its options."""
    options: dict[str, int] = {}
    while (found := _OPTION.search(rest)) is not None:
        rest = rest[: found.start()]
        key, value = found["key"], found["value"]
        if key not in _KINDS[kind]:
            near = difflib.get_close_matches(key, _KINDS[kind], 1)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(_KINDS[kind])}"
            raise UsageError(f"`{kind}:` has no option `{key}`", where="--data", hint=hint)
        if not value.isdecimal() or int(value) == 0:
            raise UsageError(f"`{key}` is a number above 0, got `{value}`", where="--data", hint=f"such as {key}=8")
        options[key] = int(value)
    return rest, options


def _files(spec: Path) -> Sequence[Path]:
    if spec.is_file():
        return [spec]
    if spec.is_dir():
        found = sorted(p for p in spec.iterdir() if p.suffix in archives.SUFFIXES)
    elif has_magic(str(spec)):
        found = sorted(Path(p) for p in glob(str(spec), recursive=True) if Path(p).is_file())
    else:
        raise InputError("no such file or folder", where=str(spec), hint=_HINT)
    if not found:
        raise InputError("there is no `.npz` here", where=str(spec), hint="save feeds with numpy.savez")
    return found
