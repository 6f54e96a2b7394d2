"""Models in and out: nothing that a model holds is lost, and no file is ever left half-written.

onnx_ir 1.1 drops `sparse_initializer` without a word (see `coo`) and resolves external data against the current folder
when the model's path has none. Both are dealt with here.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from sparsify import coo, external, leftovers, limits, messages, parallel, storage
from sparsify.errors import InputError, UsageError
from sparsify.files import replacing, write_bytes

Source = str | Path | bytes | onnx.ModelProto | ir.Model

# protobuf holds 2**31 - 1 bytes; what is not tensors gets 64 MiB of that.
INLINE_LIMIT = 2**31 - 2**26
_SOURCE = "sparsify.source"  # key in the model's in-memory metadata: the resolved path it was loaded from
_DATA_FILES = "sparsify.data_files"
_LEFTOVERS = "sparsify.leftovers"
_CHUNK = 2**20  # bytes read at a time
_DIGEST = "sparsify.sha256"  # key in the in-memory metadata of a tensor that lies in a file
_DIGITS = 12  # of the digest in the name of a data file


def load(model: Source) -> ir.Model:
    """`model` as an `ir.Model` that the caller may change. External data stays on disk until it is read.

    Raises:
        InputError: there is no such file, it is not ONNX, is cut short, has no graph, or points at external
            data that is missing, too short or outside the model's folder.
    """
    if isinstance(model, ir.Model):
        copy = model.clone()
        copy.meta.update(model.meta)
        storage.share(model.graph, copy.graph)
        return copy
    if isinstance(model, onnx.ModelProto):
        return _from_proto(model, where="model", folder=None)
    if isinstance(model, bytes):
        return _from_proto(messages.parse(model, where="model"), where="model", folder=None)
    path = Path(model)
    loaded = _from_proto(
        messages.parse(messages.read(path), where=str(path)), where=str(path), folder=path.absolute().parent
    )
    loaded.meta[_SOURCE] = path.resolve()
    loaded.meta[_DATA_FILES] = sorted({Path(t.path).resolve() for t in _external_tensors(loaded)})
    return loaded


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """`model` with all its tensors inside; `model` itself is untouched.

    Raises:
        InputError: its tensors do not fit a protobuf message.
    """
    if (total := tensor_bytes(model)) > INLINE_LIMIT:
        raise InputError(f"the model's {total} bytes of tensors do not fit one message", hint="save it to a file")
    if any(True for _ in _external_tensors(model)):
        model = ir.external_data.load_to_model(model.clone())
    return _message(model)


def serialize(model: ir.Model) -> bytes:
    """The bytes that `save` writes for a model whose data fits inside: the same model, the same bytes."""
    return bytes(to_proto(model).SerializeToString(deterministic=True))


def save(model: ir.Model, path: str | Path, *, limit: int = INLINE_LIMIT) -> None:
    """Write `model` to `path`, and its tensors to `<path>.<digest>.data` when they are more than `limit` bytes.

    Files take their names only when complete. The data file is named after what is in it, so that the model that
    was at `path` before keeps its own until the new one takes its place: in one step, whenever we are stopped.

    Raises:
        UsageError: `path` is the file that the model was loaded from, or cannot be written.
    """
    path = Path(path)
    large = tensor_bytes(model) > limit or storage.is_large(model.graph)
    data = path.with_name(f"{path.name}.{digest(model)[:_DIGITS]}.data") if large else None
    _refuse_own_files(model, (path, data) if data else (path,))
    with replacing(path, then=lambda: _drop_data(path, keep=[data, *model.meta.get(_DATA_FILES, [])])) as folder:
        if data:
            plain, sparse = coo.put_out(model)
            ir.save(plain, folder / path.name, external_data=data.name)
            proto = onnx.load(folder / path.name, load_external_data=False)
            _complete(proto, model, sparse)
            (folder / path.name).write_bytes(proto.SerializeToString(deterministic=True))
        else:
            (folder / path.name).write_bytes(serialize(model))


def copy(model: ir.Model, path: str | Path) -> None:
    """Write `model`, which is as it was loaded: its file byte for byte where it has one that stands alone.

    Raises:
        UsageError: `path` is the file that the model was loaded from, or cannot be written.
    """
    path = Path(path)
    source = source_path(model)
    if source is None or model.meta[_DATA_FILES]:
        save(model, path)
        return
    _refuse_own_files(model, (path,))
    write_bytes(path, source.read_bytes())


def outline(model: ir.Model) -> onnx.ModelProto:
    """`model` without the data of its initializers, which become inputs: for those who ask about all the rest."""
    proto = _without_tensors(model)
    known = {value.name for value in proto.graph.input}
    for graph in limits.all_graphs(proto):
        for tensor in graph.initializer:
            if tensor.name not in known:
                proto.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        del graph.initializer[:]
    return proto


def digest(model: str | Path | ir.Model) -> str:
    """sha256 in hex: of a file (and the data files it names), or of what `serialize` gives for a model.

    Of a model that is too large for that, of its message without tensors and of the sha256 of each tensor.
    """
    return identity(model)[0]


def size(model: str | Path | ir.Model) -> int:
    """Bytes on disk: of a file with the data files it names, or those a model would take."""
    if not isinstance(model, ir.Model):
        return sum(file.stat().st_size for file in _files(model))
    if fits_message(model):
        return int(to_proto(model).ByteSize())
    return int(_without_tensors(model).ByteSize()) + tensor_bytes(model)


def tensor_bytes(model: ir.Model) -> int:
    """Bytes of all initializers, wherever they are kept."""
    return sum(tensor.nbytes for tensor in _initializer_tensors(model))


def disk_bytes(model: ir.Model) -> int:
    """Bytes of the files that `model` was loaded from; 0 when it came from memory."""
    source = source_path(model)
    return sum(file.stat().st_size for file in (*([source] if source else []), *model.meta.get(_DATA_FILES, [])))


def identity(model: str | Path | ir.Model) -> tuple[str, int]:
    """`digest` and `size` at once: what takes time is common to both."""
    total = hashlib.sha256()
    if not isinstance(model, ir.Model):
        files = _files(model)
        for file in files:
            for chunk in _read_chunks(file, 0, file.stat().st_size):
                total.update(chunk)
        return total.hexdigest(), sum(file.stat().st_size for file in files)
    if fits_message(model):
        data = serialize(model)
        return hashlib.sha256(data).hexdigest(), len(data)
    skeleton = _without_tensors(model).SerializeToString(deterministic=True)
    total.update(skeleton)
    for one in parallel.in_threads(_tensor_digest, _initializer_tensors(model)):
        total.update(one)
    return total.hexdigest(), len(skeleton) + tensor_bytes(model)


def _tensor_digest(tensor: ir.TensorProtocol) -> bytes:
    """sha256 of its bytes; that of one in a file is remembered, for files of models do not change."""
    if isinstance(tensor, storage.Stored) and _DIGEST in tensor.meta:
        return bytes(tensor.meta[_DIGEST])
    total = hashlib.sha256()
    for chunk in _chunks(tensor):
        total.update(chunk)
    if isinstance(tensor, storage.Stored):
        tensor.meta[_DIGEST] = total.digest()
    return total.digest()


def fits_message(model: ir.Model) -> bool:
    """Whether all its tensors fit into one protobuf message, and into memory to make one."""
    return tensor_bytes(model) <= INLINE_LIMIT and not storage.is_large(model.graph)


# Reading ------------------------------------------------------------------------------------------------------------


def _from_proto(proto: onnx.ModelProto, where: str, folder: Path | None) -> ir.Model:
    if not proto.HasField("graph") or not proto.graph.output:
        raise InputError("the model has no graph", where=where, hint="export the model again, with its outputs")
    if not proto.graph.node:
        raise InputError("the model's graph is empty", where=where, hint="there is nothing in it to optimise")
    if not proto.opset_import:
        raise InputError("the model does not say which opset it uses", where=where, hint="export it again")
    limits.check(proto, where)
    folders = _find_files(proto, where, folder)
    sparse: list[onnx.SparseTensorProto] = []
    try:
        rest = leftovers.collect(proto)
        if any(coo.are_in(graph) for graph in limits.all_graphs(proto)):
            proto = onnx.ModelProto.FromString(proto.SerializeToString())  # the caller keeps its own message
            for graph in limits.all_graphs(proto):
                coo.take_in(graph, sparse)
        model = ir.from_proto(proto)
        coo.put_in(model, sparse, where)
        if name := _undefined(model):
            raise InputError(f"`{name}` is read, and nothing makes it", where=where, hint="export the model again")
        common.TopologicalSortPass()(model)  # runtimes take nodes in any order, onnx_ir's cloning does not
        # What cannot be measured, cloned and written again is of no use, whatever else it may be.
        tensor_bytes(model)
        _without_tensors(model)
    except InputError:
        raise
    except Exception as error:  # whatever onnx_ir trips over is in the file, such as a name that is no Unicode
        raise InputError(f"the model cannot be read: {_first_line(error)}", where=where) from error
    model.meta[_LEFTOVERS] = rest
    for tensor in _external_tensors(model):
        tensor.base_dir = folders[str(tensor.location)]
    _keep_on_disk(model)
    return model


def _undefined(model: ir.Model) -> str:
    """A value that is read and is neither input nor initializer nor made by a node; empty if there is none."""
    for graph in _all_graphs(model):
        read = [*graph.outputs, *(value for node in graph for value in node.inputs if value is not None)]
        for value in read:
            made = value.producer() is not None or value.is_graph_input() or value.is_initializer()
            if not made:
                return str(value.name)
    return ""


def _keep_on_disk(model: ir.Model) -> None:
    """Let external tensors be mapped only while somebody looks, and a large model stay out of memory."""
    large = tensor_bytes(model) > storage.LARGE_BYTES
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = storage.stored(value.const_value)
    if large:
        storage.keep_out_of_memory(model.graph)


def _find_files(proto: onnx.ModelProto, where: str, folder: Path | None) -> dict[str, Path]:
    """The folder of each location that `proto` names, all checked; blobs of a cache are named where they really are.

    onnx_ir itself refuses links that lead out of the folder it is given.
    """
    folders: dict[str, Path] = {}
    for tensor in limits.external_tensors(proto):
        file = external.check(tensor, where, folder)
        assert folder is not None  # or the check would have refused it
        entry = next(e for e in tensor.external_data if e.key == "location")
        if not file.is_relative_to(folder.resolve()):
            entry.value = file.name
        folders[entry.value] = folder if file.is_relative_to(folder.resolve()) else file.parent
    return folders


def _all_graphs(model: ir.Model) -> Iterator[ir.Graph | ir.Function]:
    yield from model.graphs()
    yield from model.functions.values()


def _initializer_tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value


def _external_tensors(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """External tensors of initializers and of attributes, in all scopes."""
    yield from (t for t in _initializer_tensors(model) if isinstance(t, ir.ExternalTensor))
    for graph in _all_graphs(model):
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR and isinstance(attribute.value, ir.ExternalTensor):
                    yield attribute.value


def _without_tensors(model: ir.Model) -> onnx.ModelProto:
    """The message of `model` with initializers that name their type and shape but hold nothing."""
    skeleton = model.clone()
    for graph in skeleton.graphs():
        for value in graph.initializers.values():
            if (tensor := value.const_value) is not None:
                shape = ir.Shape(tensor.shape.numpy())
                # `name` stands for the data: its bytes are counted and hashed by the caller.
                value.const_value = ir.ExternalTensor("", 0, 0, tensor.dtype, shape=shape, name=str(value.name))
    return ir.to_proto(skeleton)


def _message(model: ir.Model) -> onnx.ModelProto:
    """`model` as onnx_ir writes it, sparse initializers as they came."""
    plain, sparse = coo.put_out(model)
    proto = ir.to_proto(plain)
    _complete(proto, model, sparse)
    return proto


def _complete(proto: onnx.ModelProto, model: ir.Model, sparse: list[onnx.SparseTensorProto]) -> None:
    """Put into `proto`, which onnx_ir made of `model`, what it does not know, and take out what it says twice."""
    for graph in limits.all_graphs(proto) if sparse else ():
        coo.restore(graph, sparse)
    for tensor in limits.all_tensors(proto):
        props = {entry.key: entry.value for entry in tensor.metadata_props}
        if len(props) < len(tensor.metadata_props):
            onnx.helper.set_metadata_props(tensor, props)
    leftovers.put_back(proto, model.meta.get(_LEFTOVERS, {}))


def _chunks(tensor: ir.TensorProtocol) -> Iterator[bytes]:
    """The bytes of a tensor; those in a file are read, not mapped: what is mapped stays in memory."""
    if isinstance(tensor, coo.Coo):
        yield tensor.proto.SerializeToString(deterministic=True)
    elif isinstance(tensor, ir.ExternalTensor):
        yield from _read_chunks(Path(tensor.path), tensor.offset or 0, tensor.nbytes)
    else:
        yield tensor.tobytes()


def _read_chunks(file: Path, offset: int, size: int) -> Iterator[bytes]:
    with file.open("rb") as stream:
        stream.seek(offset)
        while size > 0 and (chunk := stream.read(min(size, _CHUNK))):
            yield chunk
            size -= len(chunk)


def _files(path: str | Path) -> list[Path]:
    return [Path(path), *load(path).meta[_DATA_FILES]]


# Writing ------------------------------------------------------------------------------------------------------------


def source_path(model: ir.Model) -> Path | None:
    """The resolved path that `model` was loaded from; None when it came from memory."""
    found = model.meta.get(_SOURCE)
    return found if isinstance(found, Path) else None


def _refuse_own_files(model: ir.Model, targets: tuple[Path, ...]) -> None:
    source = source_path(model)
    own = [*([source] if source else []), *model.meta.get(_DATA_FILES, [])]
    for target in targets:
        # samefile sees through links; a name alone does not.
        if target.exists() and any(file.exists() and target.samefile(file) for file in own):
            raise UsageError("this would overwrite the input", where=str(target), hint="choose another name with -o")


def _drop_data(path: Path, keep: list[Path | None]) -> None:
    """Remove data files that earlier models at `path` had; one that cannot be removed does no harm."""
    kept = {file.resolve() for file in keep if file}
    for old in path.parent.glob(f"{glob.escape(path.name)}.{'[0-9a-f]' * _DIGITS}.data"):
        if old.resolve() not in kept:
            with contextlib.suppress(OSError):
                old.unlink()


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:  # onnx_ir tells where first, and what last
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
