"""What is asked of a model from a stranger before anything else looks at it, in time linear in its message.

Counts are those of the message with all functions inlined, as a runtime would see it: twenty functions that each call
the next one twice are a million nodes. protobuf itself refuses messages nested deeper than 100, 33 subgraphs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter

import onnx

from sparsify import tensors
from sparsify.errors import InputError

# Twenty times the largest export known to us (a decoder of 80 layers, 10,000 nodes).
MAX_NODES = 200_000
MAX_TENSORS = 200_000
MAX_INPUT = 2**30  # elements that the declared shape of an input may need: 4 GiB of float32
MAX_RANK = 64  # numpy 2's own limit

_Function = tuple[str, str, str]  # domain, name, overload


def check(proto: onnx.ModelProto, where: str) -> None:
    """Refuse a model that is too much, or that contradicts itself.

    Args:
        proto: the message.
        where: the model, for people.

    Raises:
        InputError: too many nodes or tensors, a cycle, a name given twice, a tensor without its data, or with
            external data where none may be. What that is, is left to `external`.
    """
    _check_count("nodes", _inlined(proto, where), MAX_NODES, where)
    for value in proto.graph.input:
        _check_count(f"elements in its input `{value.name}`", _least(value), MAX_INPUT, where)
    graphs = list(all_graphs(proto))
    _check_count("tensors", sum(len(graph.initializer) for graph in graphs), MAX_TENSORS, where)
    for graph in graphs:
        _check_names(graph, where)
        _check_order(graph.node, f"graph `{graph.name}`", where)
    for function in proto.functions:
        _check_order(function.node, f"function `{function.name}`", where)
    for tensor, may_be_external in _tensors(proto):
        if len(tensor.dims) > MAX_RANK:
            raise InputError(f"tensor `{tensor.name}` has {len(tensor.dims)} dimensions", where=where)
        tensors.check(tensor, where)
        if _is_external(tensor) and not may_be_external:
            raise InputError(f"tensor `{tensor.name}` is neither weight nor constant, and kept in a file", where=where)


def external_tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Tensors whose values lie in files."""
    return [tensor for tensor, _ in _tensors(proto) if _is_external(tensor)]


def all_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Initializers and tensors of attributes, wherever they are."""
    yield from (tensor for tensor, _ in _tensors(proto))


def all_graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The main graph and all subgraphs, those of functions included."""
    yield proto.graph
    yield from _subgraphs(proto.graph.node)
    for function in proto.functions:
        yield from _subgraphs(function.node)


def _subgraphs(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for graph in _bodies(node):
            yield graph
            yield from _subgraphs(graph.node)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """`nodes` and those of all bodies inside them."""
    for node in nodes:
        yield node
        for graph in _bodies(node):
            yield from _all_nodes(graph.node)


def _tensors(proto: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, bool]]:
    """All tensors, and whether one there may be external: initializers and single tensors of attributes."""
    graphs = list(all_graphs(proto))
    for graph in graphs:
        yield from ((tensor, True) for tensor in graph.initializer)
        for sparse in graph.sparse_initializer:
            yield from ((sparse.values, False), (sparse.indices, False))
    nodes = [node for owner in (*graphs, *proto.functions) for node in owner.node]
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        if attribute.HasField("t"):
            yield attribute.t, True
        yield from ((tensor, False) for tensor in attribute.tensors)
        sparse_ones = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for sparse in (*sparse_ones, *attribute.sparse_tensors):
            yield from ((sparse.values, False), (sparse.indices, False))


def _least(value: onnx.ValueInfoProto) -> int:
    """Elements that a tensor of the declared shape has at least: what is not declared may be 1."""
    return math.prod(d.dim_value for d in value.type.tensor_type.shape.dim if d.HasField("dim_value"))


def _is_external(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _check_count(what: str, found: int, limit: int, where: str) -> None:
    if found > limit:
        amount = f"{found:,}" if found < 10**12 else "more than 10^12"
        raise InputError(f"the model has {amount} {what}, more than {limit:,}", where=where)


def _inlined(proto: onnx.ModelProto, where: str) -> int:
    """Nodes of the model with all functions inlined."""
    functions = {_key(f.domain, f.name, f): f for f in proto.functions}
    if len(functions) < len(proto.functions):
        raise InputError("two functions of the model have the same name", where=where)
    calls = {
        key: [c for node in _all_nodes(f.node) if (c := _key(node.domain, node.op_type, node)) in functions]
        for key, f in functions.items()
    }
    try:
        order = list(TopologicalSorter(calls).static_order())
    except CycleError as error:
        raise InputError(f"function `{error.args[1][0][1]}` of the model calls itself", where=where) from None
    size: dict[_Function, int] = {}
    for key in order:
        size[key] = sum(1 for _ in _all_nodes(functions[key].node)) + sum(size[c] for c in calls[key])
    return sum(1 + size.get(_key(n.domain, n.op_type, n), 0) for n in _all_nodes(proto.graph.node))


def _key(domain: str, name: str, owner: onnx.NodeProto | onnx.FunctionProto) -> _Function:
    return domain, name, getattr(owner, "overload", "")  # onnx 1.16 and later


def _check_names(graph: onnx.GraphProto, where: str) -> None:
    """Every value is made once: input, node output, initializer. An initializer may be an input's default."""
    inputs = [value.name for value in graph.input]
    made = [name for node in graph.node for name in node.output if name]
    stored = [t.name for t in graph.initializer] + [s.values.name for s in graph.sparse_initializer]
    for names, what in ((inputs, "input"), (stored, "initializer"), ([*inputs, *made], "value")):
        _check_once(names, what, where)
    if twice := set(stored) & set(made):
        raise InputError(f"`{min(twice)}` is both an initializer and made by a node", where=where)


def _check_once(names: Sequence[str], what: str, where: str) -> None:
    if len(names) == len(set(names)):
        return
    seen: set[str] = set()
    twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
    raise InputError(f"the {what} `{twice}` is defined twice", where=where, hint="export the model again")


def _check_order(nodes: Sequence[onnx.NodeProto], what: str, where: str) -> None:
    """Refuse nodes that wait for each other. Their order in the file is not looked at: runtimes sort them."""
    maker = {name: at for at, node in enumerate(nodes) for name in node.output if name}
    waits = {at: {maker[name] for name in _reads(node) if name in maker} for at, node in enumerate(nodes)}
    try:
        TopologicalSorter(waits).prepare()
    except CycleError as error:
        node = nodes[error.args[1][0]]
        raise InputError(
            f"{what} has a cycle through {node.op_type} `{node.name or node.output[0]}`",
            where=where,
            hint="export the model again",
        ) from None


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Values that `node` reads, in its bodies too; what a body makes itself does not hurt unless it shadows."""
    yield from node.input
    for graph in _bodies(node):
        own = {name for inner in graph.node for name in inner.output} | {value.name for value in graph.input}
        yield from (name for inner in graph.node for name in _reads(inner) if name not in own)
        yield from (value.name for value in graph.output if value.name not in own)
