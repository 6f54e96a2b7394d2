"""Models made of parts of a model: some nodes that read given values, or all of it with one value replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from sparsify.audit.attribution.sides import Side, Value
from sparsify.data import Array, Feed
from sparsify.runtime import Session, run

_OWN = "sparsify_own:"


@dataclass(frozen=True)
class Cut:
    """The nodes that compute some values of a model, reading shared values and the model's inputs as their inputs.

    Attributes:
        session: takes shared values by the names that they have in this model.
        reads: the shared values that it takes.
    """

    session: Session
    reads: tuple[str, ...]

    def run(self, feed: Mapping[str, Array], given: Mapping[str, Array]) -> Feed:
        """The values, by name, when the shared ones are `given`."""
        found = run(self.session, {**feed, **{name: given[name] for name in self.reads}})
        return {name.removeprefix(_OWN): value for name, value in found.items()}


def cut(side: Side, values: Sequence[str], shared: Mapping[str, Value]) -> Cut:
    """The part of `side` that computes `values`, each of which is one of `shared`.

    Only the node that computes a shared value is renamed; whoever reads it, at any depth, reads the input.
    """
    model, graph = side.probe.skeleton.proto, side.graph
    chosen, read = side.behind(values, shared)
    part = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    part.graph.name = graph.name
    for index in chosen:
        node = part.graph.node.add()
        node.CopyFrom(graph.node[index])
        node.output[:] = [_OWN + o if o in shared else o for o in node.output]
    given = [name for name in read if name in shared]
    part.graph.input.extend(onnx.helper.make_tensor_value_info(n, shared[n].element, None) for n in given)
    part.graph.input.extend(side.inputs[n] for n in read if n in side.inputs)
    part.graph.initializer.extend(t for t in graph.initializer if t.name in read)
    part.graph.sparse_initializer.extend(t for t in graph.sparse_initializer if t.values.name in read)
    part.graph.output.extend(onnx.ValueInfoProto(name=_OWN + v) for v in values)
    return Cut(side.probe.open(part), tuple(given))


def patched(side: Side, value: str) -> Session | None:
    """All of `side` with `value` as one more input; None when no output is left that could differ by it.

    An output that is `value` itself is left out.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(side.probe.skeleton.proto)
    graph = proto.graph
    outputs = [o for o in graph.output if o.name != value]
    if not outputs:
        return None
    for node in graph.node:
        node.output[:] = [_OWN + o if o == value else o for o in node.output]
    graph.input.append(onnx.helper.make_tensor_value_info(value, side.values[value].element, None))
    del graph.output[:]
    graph.output.extend(outputs)
    keep = [i for i in graph.value_info if i.name != value]
    del graph.value_info[:]
    graph.value_info.extend(keep)
    return side.probe.open(proto)
