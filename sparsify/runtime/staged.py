"""A model too large for memory, run part by part: what a session is to others, slower and small.

Nodes are taken in graph order into stages whose weights come to `_STAGE_BYTES` (one larger weight is a stage of its
own). onnxruntime maps a stage's weights where they lie: in the model's data file, or in the scratch file of what was
made of it; such as are spread over several folders are written to another first. Without prepacking it copies none of
them. At any time the weights of one stage are in memory, and the values that later stages read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from sparsify import storage
from sparsify.data import Array
from sparsify.errors import InputError
from sparsify.runtime import slices
from sparsify.runtime.source import Skeleton

_STAGE_BYTES = 2**27
_INSIDE_BYTES = 2**10  # smaller tensors stay in the message: onnxruntime wants shapes and axes there
_SMALL_BYTES = 2**20  # smaller tensors may be put into the message, where those that are larger lie elsewhere
_ALIGNED = 64  # bytes: onnxruntime allocates no tensor at less


class Staged:
    """As much of `onnxruntime.InferenceSession` as we use; see the top of this file."""

    def __init__(self, model: ir.Model, open_stage: Callable[[Skeleton], Any]) -> None:
        """`model` is not to change from now on; `open_stage` makes a session of a stage."""
        self._model, self._open = model, open_stage
        self._folder = tempfile.TemporaryDirectory(prefix="sparsify-", ignore_cleanup_errors=True)
        self._parts = list(parts(model))
        self._paths: dict[int, Path] = {}

    def get_inputs(self) -> list[ir.Value]:
        """What a feed must give."""
        return [v for v in self._model.graph.inputs if not v.is_initializer()]

    def get_outputs(self) -> list[ir.Value]:
        """What `run` gives."""
        return list(self._model.graph.outputs)

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Array]) -> list[Any]:
        """The named outputs, all if None."""
        wanted = [str(v.name) for v in self._model.graph.outputs] if names is None else list(names)
        live: dict[str, Any] = dict(feed)
        for number, _ in enumerate(self._parts):
            for node in chain.from_iterable(self._parts[number + 1 : number + 2]):
                for name in read_by(node) & set(self._model.graph.initializers):
                    storage.expect(self._model.graph.initializers[name].const_value)
            live = self._advance(number, live, set(wanted))
        weights = self._model.graph.initializers
        return [live[n] if n in live else np.asarray(weights[n].const_value) for n in wanted]

    def shapes(self, feed: Mapping[str, Array], values: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors among `values`, which are inputs or made by nodes of the main graph."""
        wanted, found = set(values), {n: a.shape for n, a in feed.items()}
        live: dict[str, Any] = dict(feed)
        for number, part in enumerate(self._parts):
            live = self._advance(number, live, wanted & set(made_by(part)))
            found |= {n: v.shape for n, v in live.items() if n in wanted and isinstance(v, np.ndarray)}
        return {n: shape for n, shape in found.items() if n in wanted}

    def _advance(self, number: int, live: dict[str, Any], wanted: set[str]) -> dict[str, Any]:
        """What is live after stage `number`: what later stages read, and `wanted`."""
        part = self._parts[number]
        later = set().union(*(read_by(node) for p in self._parts[number + 1 :] for node in p))
        kept = later | wanted | {str(v.name) for v in self._model.graph.outputs}
        fetched = [n for n in made_by(part) if n in kept]
        read = set().union(*(read_by(node) for node in part))
        given = {n: v for n, v in live.items() if n in read}
        if not fetched:
            return live
        folder = Path(self._folder.name) / str(number)
        folder.mkdir(exist_ok=True)
        if slices.is_wide(part[0]):
            return self._kept(live, kept, fetched, [slices.run(self._model, part[0], given, self._open)])
        home = self._home(part)
        proto = stage(self._model, part, given, fetched, folder, home)
        opened = self._open(Skeleton(proto, Path(home)) if home else Skeleton(proto, folder, scratch=True))
        return self._kept(live, kept, fetched, opened.run(None, given))

    def _home(self, part: Sequence[ir.Node]) -> str:
        """The folder that all large weights of a stage lie in; empty if there is none."""
        weights = self._model.graph.initializers
        read = set().union(*(read_by(node) for node in part))
        homes = _homes(w for n in read if n in weights and (w := weights[n].const_value) is not None)
        return homes.pop() if len(homes) == 1 else ""

    @staticmethod
    def _kept(live: dict[str, Any], kept: set[str], fetched: Sequence[str], made: Sequence[Any]) -> dict[str, Any]:
        return {n: v for n, v in live.items() if n in kept} | dict(zip(fetched, made, strict=True))


def parts(model: ir.Model) -> Iterable[list[ir.Node]]:
    """The nodes of the main graph in order, in groups of about `_STAGE_BYTES` of weights that lie in one folder."""
    weights = model.graph.initializers
    part: list[ir.Node] = []
    seen: dict[str, int] = {}
    seen_homes: set[str] = set()
    for node in model.graph:
        read = {n: w for n in read_by(node) if n in weights and (w := weights[n].const_value) is not None}
        new, homes = {n: w.nbytes for n, w in read.items()}, _homes(read.values())
        alone = slices.is_wide(node) or (bool(part) and slices.is_wide(part[-1]))
        moves = bool(homes and seen_homes) and homes != seen_homes
        if part and (alone or moves or sum((seen | new).values()) > _STAGE_BYTES):
            yield part
            part, seen, seen_homes = [], {}, set()
        part.append(node)
        seen |= new
        seen_homes |= homes
    yield part


def stage(
    model: ir.Model,
    part: Sequence[ir.Node],
    given: Mapping[str, Any],
    outputs: Sequence[str],
    folder: Path | None,
    home: str = "",
) -> onnx.ModelProto:
    """The nodes `part` of the main graph as a model: values `given` in, `outputs` out.

    Large weights go into the file `weights` of `folder`, which is kept if it is there; without a folder all are inside.
    Those in data files of the folder `home` stay there instead, and all others are inside.

    Raises:
        InputError: a value that is given is no tensor.
    """
    if not all(isinstance(value, np.ndarray) for value in given.values()):
        raise InputError("a sequence is live between two stages: only tensors can be handed on")
    read = set().union(*(read_by(node) for node in part))
    made = set(made_by(part))
    inputs = [
        onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), [None] * a.ndim)
        for n, a in given.items()
        if n in read
    ]
    weights = model.graph.initializers
    named = [(n, weights[n].const_value) for n in sorted(read) if n in weights and n not in made | given.keys()]
    tensors = [(n, w) for n, w in named if w is not None]
    if home:
        constants = [_lying(w, n) if _home(w) == home else _inside(w, n) for n, w in tensors]
    else:
        constants = _outside(tensors, folder) if folder is not None else [_inside(w, n) for n, w in tensors]
    graph = onnx.helper.make_graph(
        [ir.to_proto(node) for node in part], "stage", inputs, [onnx.ValueInfoProto(name=n) for n in outputs], constants
    )
    imports = [onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items()]
    functions = [ir.to_proto(f) for f in model.functions.values()]
    return onnx.helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=model.ir_version)


def made_by(nodes: Iterable[ir.Node]) -> list[str]:
    """Names of what `nodes` compute."""
    return [str(v.name) for node in nodes for v in node.outputs if v.name]


def read_by(node: ir.Node) -> set[str]:
    """Names of what `node` reads, also in the graphs inside it (these may include names of their own)."""
    names = {str(v.name) for v in node.inputs if v is not None}
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            names |= _read_inside(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            names |= set().union(*map(_read_inside, attribute.as_graphs()))
    return names


def _read_inside(graph: ir.Graph) -> set[str]:
    inside = set().union(*(read_by(node) for node in graph)) if len(graph) else set()
    return inside | {str(v.name) for v in graph.outputs}


def _inside(tensor: ir.TensorProtocol, name: str) -> onnx.TensorProto:
    """The data of an initializer, wherever it is kept."""
    if isinstance(tensor, ir.ExternalTensor):
        return onnx.numpy_helper.from_array(np.asarray(tensor.numpy()), name)
    proto: onnx.TensorProto = ir.to_proto(tensor)
    proto.name = name
    return proto


def _home(tensor: ir.TensorProtocol) -> str:
    """The folder of the data file in which onnxruntime can use the tensor as it lies there; empty if in none."""
    if not isinstance(tensor, ir.ExternalTensor) or tensor.nbytes < _INSIDE_BYTES:
        return ""
    return str(tensor.base_dir) if (tensor.offset or 0) % _ALIGNED == 0 else ""


def _homes(tensors: Iterable[ir.TensorProtocol]) -> set[str]:
    return {_home(tensor) for tensor in tensors if tensor.nbytes >= _SMALL_BYTES}


def _outside(tensors: Sequence[tuple[str, ir.TensorProtocol]], folder: Path) -> list[onnx.TensorProto]:
    """The tensors as messages that refer to the file `weights` in `folder`; it is written once."""
    path = folder / "weights"
    found: list[onnx.TensorProto] = []
    written, offset = path.exists(), 0
    with path.open("rb" if written else "wb") as file:  # onnx_ir cannot append
        for name, tensor in tensors:
            if tensor.nbytes < _INSIDE_BYTES:
                found.append(_inside(tensor, name))
                continue
            if not written:
                tensor.tofile(file)  # type: ignore[attr-defined]
            found.append(_reference(tensor, name, path.name, offset))
            offset += tensor.nbytes
    return found


def _lying(tensor: ir.TensorProtocol, name: str) -> onnx.TensorProto:
    assert isinstance(tensor, ir.ExternalTensor)
    return _reference(tensor, name, str(tensor.location), tensor.offset or 0)


def _reference(tensor: ir.TensorProtocol, name: str, location: str, offset: int) -> onnx.TensorProto:
    proto = onnx.TensorProto(name=name, data_type=int(tensor.dtype), dims=tensor.shape.numpy())
    proto.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", tensor.nbytes)):
        proto.external_data.add(key=key, value=str(value))
    return proto
