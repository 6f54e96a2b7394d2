"""Where drift arises: each node of the candidate fed the base's values, against what it has piled up so far.

For a value v that both models compute under the same name, as a float tensor of the same shape:

    accumulated   relative L2 of v in the whole candidate against v in the base
    own           relative L2 of v against the base when the candidate's node that computes v is given the
                  base's values; where those are missing from the base, the nodes that compute them from
                  values that it has are run too, so the row then stands for that small group of nodes

Both are sqrt(sum |d|^2 / sum |b|^2) over all feeds, as in `sparsify.audit.metrics`. Nodes inside subgraphs and
functions count with the node that holds them. Nodes that depend on no input have no row.

Memory: values are taken in chunks, so that one chunk's values of one feed exist at a time. Each chunk
runs the base, the candidate and the cut-out nodes once over the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from sparsify import runtime
from sparsify.audit import metrics
from sparsify.data import Array, Feed
from sparsify.runtime import Probe, Source
from sparsify.runtime.sessions import open_skeleton
from sparsify.runtime.source import graphs_in

CHUNK_BYTES = 128 * 2**20  # of the values of one chunk in one model on the first feed
_OWN = "sparsify_own:"
_ELEMENTS: dict[str, int] = {
    "tensor(float)": onnx.TensorProto.FLOAT,
    "tensor(double)": onnx.TensorProto.DOUBLE,
    "tensor(float16)": onnx.TensorProto.FLOAT16,
}
_BYTES: dict[int, int] = {onnx.TensorProto.FLOAT: 4, onnx.TensorProto.DOUBLE: 8, onnx.TensorProto.FLOAT16: 2}


@dataclass(frozen=True)
class LayerDrift:
    """Drift at one node of the candidate.

    Attributes:
        node: its name, or `OP -> VALUE` when it has none.
        op: its type, with the domain where that is not ONNX's own.
        value: the output that was compared.
        own, accumulated: see the module.
    """

    node: str
    op: str
    value: str
    own: float
    accumulated: float


def drift_of_layers(
    base: Source,
    candidate: Source,
    feeds: Sequence[Feed],
    threads: int | None,
    native: bool,
    progress: Callable[[str, int, int], None] | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> tuple[LayerDrift, ...]:
    """Rows in the candidate's graph order, for feeds that were checked. Other arguments as in `audit`."""
    with (
        runtime.probe(base, threads=threads, native=native) as old,
        runtime.probe(candidate, threads=threads, native=native) as new,
    ):
        shared = _shared(old, new, feeds[0])
        rows = _rows(new.skeleton.proto.graph, shared)
        chunks = list(_chunks(rows, shared, chunk_bytes))
        found: list[LayerDrift] = []
        for index, chunk in enumerate(chunks):
            found += _drift(old, new, chunk, shared, feeds)
            if progress is not None:
                progress("layers", index + 1, len(chunks))
    return tuple(found)


@dataclass(frozen=True)
class _Value:
    element: int  # TensorProto.DataType
    nbytes: int


def _shared(old: Probe, new: Probe, feed: Feed) -> dict[str, _Value]:
    """Float tensors that both models compute, of the same shape; these are where models can be cut."""
    elements = _elements(old)
    candidates = {name: e for name, e in _elements(new).items() if elements.get(name) == e}
    before, after = old.shapes(feed, candidates), new.shapes(feed, candidates)
    return {
        name: _Value(e, math.prod(after[name]) * _BYTES[e])
        for name, e in candidates.items()
        if before[name] == after[name]
    }


def _elements(inside: Probe) -> dict[str, int]:
    """Element types of the float tensors that depend on the inputs."""
    alive = {i.name for i in inside.skeleton.proto.graph.input} - _constants(inside.skeleton.proto.graph)
    for node in inside.skeleton.proto.graph.node:
        if alive.intersection(_reads(node)):
            alive.update(node.output)
    names = [v for v in inside.values if v in alive]
    types = {o.name: o.type for o in inside.session(names).get_outputs()} if names else {}
    return {name: _ELEMENTS[t] for name, t in types.items() if t in _ELEMENTS}


def _rows(graph: onnx.GraphProto, shared: Mapping[str, _Value]) -> dict[str, onnx.NodeProto]:
    """The node of each row, by the first of its outputs that is shared."""
    found = {}
    for node in graph.node:
        if (value := next((o for o in node.output if o in shared), None)) is not None:
            found[value] = node
    return found


def _chunks(
    rows: Mapping[str, onnx.NodeProto], shared: Mapping[str, _Value], limit: int
) -> Iterator[dict[str, onnx.NodeProto]]:
    chunk: dict[str, onnx.NodeProto] = {}
    used = 0
    for value, node in rows.items():
        if chunk and used + shared[value].nbytes > limit:
            yield chunk
            chunk, used = {}, 0
        chunk[value] = node
        used += shared[value].nbytes
    if chunk:
        yield chunk


def _drift(
    old: Probe, new: Probe, chunk: Mapping[str, onnx.NodeProto], shared: Mapping[str, _Value], feeds: Sequence[Feed]
) -> Iterator[LayerDrift]:
    cut = _cut(new.skeleton.proto, list(chunk), shared)
    needed = {i.name for i in cut.graph.input if i.name in shared}
    before = old.session([v for v in old.values if v in chunk or v in needed])
    after = new.session(chunk)
    alone = open_skeleton(replace(new.skeleton, proto=cut), threads=new.threads, native=new.native)
    totals = {v: np.zeros(3) for v in chunk}  # |b|^2, |d|^2 alone, |d|^2 in the whole candidate
    for feed in feeds:
        base, whole = runtime.run(before, feed), runtime.run(after, feed)
        own = runtime.run(alone, {**feed, **base})
        for v, total in totals.items():
            total += (_power(base[v]), _error(base[v], own[_OWN + v]), _error(base[v], whole[v]))
    for v, (power, own_error, error) in totals.items():
        node = chunk[v]
        yield LayerDrift(
            node.name or f"{node.op_type} -> {v}",
            f"{node.domain}.{node.op_type}" if node.domain else node.op_type,
            v,
            own=float(metrics.relative_l2(power, own_error)),
            accumulated=float(metrics.relative_l2(power, error)),
        )


def _power(base: Array) -> float:
    finite, _, _ = metrics.comparable(base, base)
    return float((finite * finite).sum())


def _error(base: Array, candidate: Array) -> float:
    if base.shape != candidate.shape:  # a shape that depends on values
        return math.inf
    b, c, bad = metrics.comparable(base, candidate)
    return math.inf if bad.any() else float(((c - b) ** 2).sum())


def _cut(model: onnx.ModelProto, values: Sequence[str], shared: Mapping[str, _Value]) -> onnx.ModelProto:
    """A model of the nodes that compute `values`, reading shared values and the model's inputs as its inputs.

    Only the side that computes a shared value is renamed; whoever reads it, at any depth, reads the input.
    """
    graph = model.graph
    producer = {o: i for i, node in enumerate(graph.node) for o in node.output if o}
    constants, inputs = _constants(graph), {i.name: i for i in graph.input}
    chosen: set[int] = set()
    read: dict[str, None] = {}
    pending = [producer[v] for v in values]
    while pending:
        if (index := pending.pop()) in chosen:
            continue
        chosen.add(index)
        for name in _reads(graph.node[index]):
            read[name] = None
            if name not in shared and name in producer:
                pending.append(producer[name])
    cut = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    cut.graph.name = graph.name
    for index in sorted(chosen):
        node = cut.graph.node.add()
        node.CopyFrom(graph.node[index])
        node.output[:] = [_OWN + o if o in shared else o for o in node.output]
    for name in read:
        if name in shared:
            cut.graph.input.append(onnx.helper.make_tensor_value_info(name, shared[name].element, None))
        elif name in inputs and name not in constants:
            cut.graph.input.append(inputs[name])
    cut.graph.initializer.extend(t for t in graph.initializer if t.name in read)
    cut.graph.sparse_initializer.extend(t for t in graph.sparse_initializer if t.values.name in read)
    cut.graph.output.extend(onnx.ValueInfoProto(name=_OWN + v) for v in values)
    return cut


def _constants(graph: onnx.GraphProto) -> set[str]:
    return {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}


def _reads(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, those of its subgraphs included."""
    names = {i for i in node.input if i}
    for graph in graphs_in(node):
        inside = {i.name for i in graph.input} | _constants(graph) | {o for n in graph.node for o in n.output}
        names |= {name for n in graph.node for name in _reads(n)} - inside
        names |= {o.name for o in graph.output} - inside
    return names
