"""Any form of a model as a proto without its bulk: what is common to opening, probing and measuring sizes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]
from onnx.external_data_helper import uses_external_data

from sparsify.errors import InputError

Source: TypeAlias = str | Path | bytes | onnx.ModelProto | ir.Model

# Protobuf messages end at 2 GiB. Weights above this go to a file; the rest of a model is far below the difference.
INLINE_BYTES = 2**31 - 2**28


@dataclass(frozen=True)
class Skeleton:
    """A model whose large weights may lie in files.

    Attributes:
        proto: never edited by those who read it; edit a copy.
        folder: of the external data; None when there is none.
        scratch: `folder` is ours, and goes when the context ends.
    """

    proto: onnx.ModelProto
    folder: Path | None = None
    scratch: bool = False


@contextmanager
def opened(model: Source) -> Iterator[Skeleton]:
    """`model` as a skeleton. Sessions made inside the context outlive it.

    Weights are read from a path's own external data, never copied; an `onnx_ir.Model` and a
    `ModelProto` too large for one message are written to a scratch folder first.

    Raises:
        InputError: there is no such file, or it is not ONNX.
    """
    if isinstance(model, (str, Path)):
        path = Path(model)
        proto = _read(path)
        yield Skeleton(proto, path.resolve().parent if _external(proto) else None)
    elif isinstance(model, bytes):
        yield Skeleton(_parse(model, "bytes"))
    elif isinstance(model, ir.Model):
        with _of_ir(model) as skeleton:
            yield skeleton
    elif sum(map(_inline_bytes, model.graph.initializer)) > INLINE_BYTES:
        with scratch() as folder:
            copy = _raw_copy(model)
            onnx.save_model(copy, folder / "saved.onnx", save_as_external_data=True, location="weights")
            yield Skeleton(onnx.load(folder / "saved.onnx", load_external_data=False), folder, scratch=True)
    else:
        yield Skeleton(model, Path.cwd() if _external(model) else None)


def size_bytes(model: Source) -> int:
    """Bytes of the model as a file, with the external data that it refers to.

    A file on disk counts whole, also the parts of its data files that no tensor refers to.
    """
    if isinstance(model, bytes):
        return len(model)
    with opened(model) as skeleton:
        own: int = skeleton.proto.ByteSize()
        if isinstance(model, (str, Path)):
            own = Path(model).stat().st_size
        if skeleton.folder is None:
            return own
        files: set[str] = {e.value for t in _external(skeleton.proto) for e in t.external_data if e.key == "location"}
        return own + sum((skeleton.folder / f).stat().st_size for f in files)


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of `graph` and of all graphs inside it."""
    for node in graph.node:
        yield node
        for inner in graphs_in(node):
            yield from nodes_of(inner)


def graphs_in(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies that control flow carries as attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


@contextmanager
def _of_ir(model: ir.Model) -> Iterator[Skeleton]:
    weights = [v.const_value for g in model.graphs() for v in g.initializers.values() if v.const_value is not None]
    if sum(w.nbytes for w in weights) > INLINE_BYTES:
        with scratch() as folder:
            ir.save(model, folder / "saved.onnx", external_data="weights")
            yield Skeleton(onnx.load(folder / "saved.onnx", load_external_data=False), folder, scratch=True)
        return
    if any(isinstance(w, ir.ExternalTensor) for w in weights):
        model = model.clone()  # shares tensors; those in files are then replaced in the clone alone
        ir.external_data.load_to_model(model)
    yield Skeleton(ir.to_proto(model))


@contextmanager
def scratch() -> Iterator[Path]:
    # Windows does not delete a file that a living session has mapped: it stays until the system cleans up.
    with tempfile.TemporaryDirectory(prefix="sparsify-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _read(path: Path) -> onnx.ModelProto:
    try:
        return _parse(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _parse(data: bytes, where: str) -> onnx.ModelProto:
    try:
        proto = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise InputError("this is not an ONNX model", where=where) from error
    if not proto.HasField("graph"):
        raise InputError("this is not an ONNX model: it has no graph", where=where)
    return proto


def _inline_bytes(tensor: onnx.TensorProto) -> int:
    return max(
        len(tensor.raw_data), 4 * len(tensor.float_data), 8 * len(tensor.int64_data), 8 * len(tensor.double_data)
    )


def _raw_copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose initializers are raw bytes: onnx moves no others into files."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if not tensor.HasField("raw_data") and not uses_external_data(tensor):
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    return copy


def _external(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Tensors whose values lie in files."""
    nodes = list(nodes_of(proto.graph))
    graphs = [proto.graph, *(g for node in nodes for g in graphs_in(node))]
    tensors = [t for g in graphs for t in g.initializer]
    tensors += [a.t for node in nodes for a in node.attribute if a.HasField("t")]
    return [t for t in tensors if uses_external_data(t)]
