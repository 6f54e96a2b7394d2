"""Tensors that live on the disk, so that a model larger than memory can be read, rewritten and saved.

A tensor is mapped when it is asked for and unmapped when nobody holds the array any more. What passes make of a large
model goes to a scratch file at once. The scratch folder is that of `tempfile`: it needs as much room as the model, on
a disk (`TMPDIR=/a/disk`; a `/tmp` in memory would defeat the purpose).
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

LARGE_BYTES = 2**30  # models with more than this in tensors are kept out of memory
_ALIGNED = 64  # bytes: what onnxruntime allocates tensors at, and asks of those that it maps
_KEPT_BYTES = 2**16  # smaller tensors stay in memory
_SCRATCH = "sparsify.scratch"  # key in the metadata of a large model's main graph


class Stored(ir.ExternalTensor):
    """An external tensor that keeps no mapping: it lasts as long as the array that `numpy` gave."""

    def numpy(self) -> npt.NDArray[Any]:
        """The data, read-only."""
        array: npt.NDArray[Any] = super().numpy()
        self._array = self.raw = None
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self.numpy(), dtype)

    def tobytes(self) -> bytes:
        """A copy of the data, little-endian."""
        found = super().tobytes()
        self._array = self.raw = None
        return found


class Scratch:
    """A file that tensors are appended to; gone with the last model that refers to it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sparsify-", ignore_cleanup_errors=True)

    def store(self, array: npt.NDArray[Any], name: str) -> Stored:
        """`array` as a tensor on the disk."""
        tensor = ir.Tensor(np.ascontiguousarray(array), name=name)
        path = Path(self._folder.name) / "tensors"
        with path.open("ab") as file:
            offset = -(-file.tell() // _ALIGNED) * _ALIGNED
            file.truncate(offset)
            tensor.tofile(file)
        return Stored(
            path.name,
            offset,
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(array.shape),
            name=name,
            base_dir=str(path.parent),
        )


def stored(tensor: ir.ExternalTensor) -> Stored:
    """The same tensor without a lasting mapping."""
    return Stored(
        tensor.location,
        tensor.offset,
        tensor.length,
        tensor.dtype,
        shape=tensor.shape,
        name=str(tensor.name),
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props) or None,
        base_dir=tensor.base_dir,
    )


def keep_out_of_memory(graph: ir.Graph) -> None:
    """From now on `tensor` puts what is made for `graph` on the disk."""
    graph.meta[_SCRATCH] = Scratch()


def share(source: ir.Graph, copy: ir.Graph) -> None:
    """Let `copy` go on where `source` was."""
    if _SCRATCH in source.meta:
        copy.meta[_SCRATCH] = source.meta[_SCRATCH]


def forget(array: npt.NDArray[Any]) -> None:
    """Take the pages of a mapped array out of memory until somebody looks again; of others nothing is taken."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def expect(tensor: ir.TensorProtocol | None) -> None:
    """Have the disk read a tensor while something else is computed; somebody will look at it soon."""
    _advise(tensor, "POSIX_FADV_WILLNEED")


def release(tensor: ir.TensorProtocol | None) -> None:
    """Let the system have the memory that it keeps of a tensor's file: of a model larger than that, the rest stays."""
    _advise(tensor, "POSIX_FADV_DONTNEED")


def _advise(tensor: ir.TensorProtocol | None, advice: str) -> None:
    if isinstance(tensor, Stored) and hasattr(os, "posix_fadvise"):
        with open(tensor.path, "rb") as file:
            os.posix_fadvise(file.fileno(), tensor.offset or 0, tensor.nbytes, getattr(os, advice))


def is_large(graph: ir.Graph) -> bool:
    """Whether the model of this main graph is kept out of memory."""
    return _SCRATCH in graph.meta


def tensor(array: npt.NDArray[Any], name: str, graph: ir.Graph | None) -> ir.TensorProtocol:
    """`array` as a tensor of `graph`: in memory, or on the disk where `graph` is that of a large model."""
    scratch = None if graph is None else graph.meta.get(_SCRATCH)
    if isinstance(scratch, Scratch) and array.nbytes >= _KEPT_BYTES:
        return scratch.store(array, name)
    return ir.tensor(array, name=name)
