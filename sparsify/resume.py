"""Work that was interrupted goes on where it was: what each step came to is kept until all are done.

The folder's name is a digest of everything that the outcome depends on: the pass and its options, the model, the data,
the libraries and the kind of CPU. What is read back is therefore what would be computed again, to the byte. A file that
cannot be read, or a folder that cannot be written, only costs the time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify import modelio
from sparsify.cost import cache_folder
from sparsify.errors import UsageError
from sparsify.files import write_bytes
from sparsify.machine import machine
from sparsify.versions import mathematics

Arrays = dict[str, npt.NDArray[Any]]
_waiting: ContextVar[list[Saved] | None] = ContextVar("waiting", default=None)  # to be cleared; see `kept`
_FACTS = "facts"  # key of the JSON text beside the arrays


class Saved:
    """Steps of one piece of work, by name, in a folder of the cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, work: object, model: ir.Model, feeds: Sequence[Mapping[str, npt.NDArray[Any]]]) -> Saved:
        """What was saved of `work` (its text counts) on `model` as it is now, with `feeds`."""
        here = machine()
        found = hashlib.sha256(repr((str(work), mathematics(), here.isa_flags, modelio.digest(model))).encode())
        for feed in feeds:
            for name in sorted(feed):
                array = np.asarray(feed[name])
                found.update(repr((name, array.dtype.str, array.shape)).encode())
                found.update(repr(array.tolist()).encode() if array.dtype == object else array.tobytes())
        return cls(cache_folder() / "pruning" / found.hexdigest()[:32])

    def load(self, step: str) -> tuple[Arrays, Any] | None:
        """The arrays and the facts of a step; None if it was not saved, or not as a whole."""
        try:
            with np.load(self._path(step), allow_pickle=False) as data:
                arrays = dict(data)
            return arrays, json.loads(str(arrays.pop(_FACTS)))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def save(self, step: str, arrays: Arrays, facts: Any) -> None:
        """Keep a step; `facts` must be what JSON can hold."""
        with contextlib.suppress(OSError, UsageError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bytes(self._path(step), _packed({**arrays, _FACTS: np.array(json.dumps(facts))}))

    def clear(self) -> None:
        """Forget all steps: the work is done. Inside `kept` that happens at its end."""
        if (waiting := _waiting.get()) is not None:
            waiting.append(self)
            return
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, step: str) -> Path:
        return self.folder / f"{step}.npz"


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """What is saved inside outlives the work that saved it: other work may share its steps, and so may the next run
    where this one is stopped. At a good end all of it is forgotten.
    """
    saved: list[Saved] = []
    token = _waiting.set(saved)
    try:
        yield
    finally:
        _waiting.reset(token)
    for one in saved:
        one.clear()


def _packed(arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
