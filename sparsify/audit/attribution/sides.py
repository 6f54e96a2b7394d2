"""What attribution must know of each of the two models: the float values that it computes, and who computes them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from sparsify.data import Array
from sparsify.runtime import Probe
from sparsify.runtime.source import graphs_in

ELEMENTS: dict[str, int] = {
    "tensor(float)": onnx.TensorProto.FLOAT,
    "tensor(double)": onnx.TensorProto.DOUBLE,
    "tensor(float16)": onnx.TensorProto.FLOAT16,
}


@dataclass(frozen=True)
class Value:
    """A float tensor.

    Attributes:
        element: TensorProto.DataType.
        shape: on the feed that was looked at.
    """

    element: int
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes on the feed that was looked at."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self.element))


class Side:
    """One model, opened for looking inside.

    Attributes:
        probe, graph: the model.
        values: the float tensors of the main graph that depend on its inputs, by name, in graph order.
        producer: index into `graph.node` by the name of what the node computes, floats and others.
        constants: names of initializers.
    """

    def __init__(self, probe: Probe, feed: Mapping[str, Array]) -> None:
        self.probe = probe
        self.graph = probe.skeleton.proto.graph
        self.constants = {t.name for t in self.graph.initializer} | {
            t.values.name for t in self.graph.sparse_initializer
        }
        self.producer = {o: i for i, node in enumerate(self.graph.node) for o in node.output if o}
        self.inputs = {i.name: i for i in self.graph.input if i.name not in self.constants}
        elements = self._elements()
        shapes = probe.shapes(feed, elements)
        self.values = {name: Value(element, shapes[name]) for name, element in elements.items()}

    def node(self, value: str) -> onnx.NodeProto:
        """Who computes `value`."""
        node: onnx.NodeProto = self.graph.node[self.producer[value]]
        return node

    @property
    def fixed_batch(self) -> bool:
        """Whether the first dimension of an input is a number."""
        shapes = (i.type.tensor_type.shape for i in self.inputs.values())
        return any(shape.dim and shape.dim[0].HasField("dim_value") for shape in shapes)

    def behind(self, values: Iterable[str], given: Iterable[str]) -> tuple[list[int], list[str]]:
        """Indices of the nodes that compute `values` from `given`, in graph order, and the names that they read."""
        stop = set(given)
        pending = [self.producer[v] for v in values]
        chosen: set[int] = set()
        read: dict[str, None] = {}
        while pending:
            index = pending.pop()
            if index in chosen:
                continue
            chosen.add(index)
            for name in reads(self.graph.node[index]):
                read[name] = None
                if name not in stop and name in self.producer:
                    pending.append(self.producer[name])
        return sorted(chosen), list(read)

    def _elements(self) -> dict[str, int]:
        """Element types of the float tensors that depend on the inputs."""
        self.alive = set(self.inputs)
        for node in self.graph.node:
            if self.alive.intersection(reads(node)):
                self.alive.update(o for o in node.output if o)
        names = [v for v in self.probe.values if v in self.alive]
        types = {o.name: o.type for o in self.probe.session(names).get_outputs()} if names else {}
        return {name: ELEMENTS[t] for name, t in types.items() if t in ELEMENTS}


def reads(node: onnx.NodeProto) -> list[str]:
    """Names that a node reads, each once, in its order, then those that its subgraphs take from outside."""
    names = dict.fromkeys(i for i in node.input if i)
    for graph in graphs_in(node):
        inside = {i.name for i in graph.input} | {o for n in graph.node for o in n.output}
        inside |= {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
        outer = [name for n in graph.node for name in reads(n)] + [o.name for o in graph.output]
        names |= dict.fromkeys(name for name in outer if name not in inside)
    return list(names)


def name_of(node: onnx.NodeProto, value: str) -> str:
    """The node's name; `OP -> VALUE` when it has none."""
    return node.name or f"{node.op_type} -> {value}"


def operator_of(node: onnx.NodeProto) -> str:
    """The node's type, with the domain where that is not ONNX's own."""
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
