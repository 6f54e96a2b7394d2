"""What differs between two models, in parts that can be taken one by one.

Each pair of matched values has a region in either model: the nodes that compute it from matched values. Regions are the
same when they have the same operators, attributes, constants and sources. Pairs whose regions differ make one unit when
taking one without the other could close a cycle, when one node computes them, or when one is the product and
the other the sum with its bias (a tool that changes weights may make up for it in the bias).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

import numpy as np
import onnx
import onnx.numpy_helper
import scipy.sparse
from scipy.sparse.csgraph import connected_components

from sparsify.audit.attribution.sides import Side, name_of, operator_of, reads

_Pairs = Mapping[str, str]  # base value by candidate value


@dataclass(frozen=True)
class Unit:
    """Changes that go together.

    Attributes:
        values: of the candidate, that it computes in another way.
        nodes: names of the candidate's nodes that do, in graph order.
        base_nodes: names of those of the base that they stand for.
    """

    values: tuple[str, ...]
    nodes: tuple[str, ...]
    base_nodes: tuple[str, ...]


def pairs(old: Side, new: Side, partner: _Pairs) -> dict[str, str]:
    """`partner` and the outputs that are no floats: their names are the interface."""
    outputs = (o.name for o in old.graph.output)
    both = {o: o for o in outputs if o in old.producer and o in new.producer}
    return {**partner, **both}


def units(old: Side, new: Side, partner: _Pairs) -> list[Unit]:
    """The differences, in the candidate's graph order.

    Args:
        old, new: base and candidate.
        partner: as `pairs` gives it.
    """
    ours = _digests(old, {base: base for base in partner.values()})
    theirs = _digests(new, partner)
    values = [v for v in new.producer if v in partner]
    differ = {v for v in values if ours[partner[v]] != theirs[v]}
    together = _together(old, new, partner, values, differ)
    groups: dict[int, list[str]] = {}
    for value, number in zip(values, together, strict=True):
        groups.setdefault(number, []).append(value)
    return [_unit(old, new, partner, group) for group in groups.values() if differ.intersection(group)]


def _unit(old: Side, new: Side, partner: _Pairs, values: Sequence[str]) -> Unit:
    nodes = _behind(new, values, partner)
    base_nodes = _behind(old, [partner[v] for v in values], set(partner.values()))
    return Unit(tuple(values), tuple(_names(new, nodes)), tuple(_names(old, base_nodes)))


def _behind(side: Side, values: Sequence[str], shared: Iterable[str]) -> list[int]:
    return sorted({i for v in values for i in side.behind([v], set(shared) - {v})[0]})


def _names(side: Side, indices: Iterable[int]) -> Iterator[str]:
    for node in (side.graph.node[i] for i in indices):
        if node.op_type != "Constant":
            yield name_of(node, next(o for o in node.output if o))


def _together(old: Side, new: Side, partner: _Pairs, values: Sequence[str], differ: Collection[str]) -> list[int]:
    """A number for each of `values`; those of one number go together."""
    place = {v: i for i, v in enumerate(values)}
    base_place = {partner[v]: i for v, i in place.items()}
    edges = [(base_place[s], base_place[t]) for s, t in _edges(old, base_place)]
    edges += [(place[s], place[t]) for s, t in _edges(new, place)]
    _, cyclic = _components(edges, len(values), "strong")
    ties = list(zip(range(len(values)), (int(np.flatnonzero(cyclic == c)[0]) for c in cyclic), strict=True))
    for side, places in ((old, base_place), (new, place)):
        both = ((places[s], places[t]) for s, t in _products_with_bias(side, places))
        ties += [(s, t) for s, t in both if values[s] in differ and values[t] in differ]
        ties += _of_one_node(side, places)
    _, found = _components(ties, len(values), "weak")
    return [int(number) for number in found]


def _components(edges: Sequence[tuple[int, int]], count: int, connection: str) -> tuple[int, np.ndarray]:
    rows, columns = zip(*edges, strict=True) if edges else ((), ())
    matrix = scipy.sparse.coo_array((np.ones(len(edges), np.int8), (rows, columns)), shape=(count, count))
    found: tuple[int, np.ndarray] = connected_components(matrix.tocsr(), directed=True, connection=connection)
    return found


def _edges(side: Side, shared: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """(read, computed) of shared values: what the region of each of them reads."""
    for value in shared:
        _, read = side.behind([value], shared.keys() - {value})
        yield from ((name, value) for name in read if name in shared and name != value)


def _of_one_node(side: Side, shared: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    for node in side.graph.node:
        first, *others = [shared[o] for o in node.output if o in shared] or [0]
        yield from ((first, other) for other in others)


def _products_with_bias(side: Side, shared: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """(product, sum) where a constant is added to a product that nobody else reads."""
    readers: dict[str, int] = {}
    for node in side.graph.node:
        for name in reads(node):
            readers[name] = readers.get(name, 0) + 1
    for node in side.graph.node:
        if node.op_type != "Add" or node.output[0] not in shared:
            continue
        made = [i for i in node.input if i in shared and readers[i] == 1]
        fixed = [i for i in node.input if i not in side.alive]
        if len(made) == len(fixed) == 1 and side.node(made[0]).op_type in ("MatMul", "Conv"):
            yield made[0], node.output[0]


def _digests(side: Side, names: Mapping[str, str]) -> dict[str, str]:
    """Of what computes each value from those that have `names`: the same for regions that are the same."""
    constants = {t.name: _of_tensor(t) for t in side.graph.initializer}
    found: dict[str, str] = {}

    def source(name: str) -> str:
        if name in names:
            return f"value {names[name]}"
        return found.get(name) or constants.get(name) or f"input {name}"

    waits = {
        index: {side.producer[name] for name in reads(node) if name in side.producer}
        for index, node in enumerate(side.graph.node)
    }
    for index in TopologicalSorter(waits).static_order():
        node = side.graph.node[index]
        text = _of_node(node, [source(name) if name else "" for name in node.input], [source(n) for n in reads(node)])
        found |= {output: f"{text} {place}" for place, output in enumerate(node.output) if output}
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            found[node.output[0]] = _of_tensor(node.attribute[0].t)
    return found


def _of_node(node: onnx.NodeProto, inputs: Sequence[str], everything: Sequence[str]) -> str:
    """`everything` also has what bodies take from outside."""
    attributes = sorted((a.name, _of_attribute(a)) for a in node.attribute)
    return hashlib.sha256(repr((operator_of(node), attributes, inputs, everything)).encode()).hexdigest()


def _of_attribute(attribute: onnx.AttributeProto) -> str:
    if attribute.HasField("t"):
        return _of_tensor(attribute.t)
    return hashlib.sha256(attribute.SerializeToString(deterministic=True)).hexdigest()


def _of_tensor(tensor: onnx.TensorProto) -> str:
    array = onnx.numpy_helper.to_array(tensor)
    data = repr(array.tolist()).encode() if array.dtype == object else np.ascontiguousarray(array).tobytes()
    return hashlib.sha256(repr((tensor.data_type, array.shape)).encode() + data).hexdigest()
