"""The few questions that passes ask of an onnx_ir graph, and the few edits that they share.

A linear layer here is a MatMul or a Gemm whose weight is a constant matrix:

    Y [..., N] = alpha * X [..., K] W [K, N] + beta * C

Weights are looked at through Identity and Transpose nodes, and through a Cast to fp32. Shapes and types are read from
tensor headers; data is read only by `constant` and `Linear.matrix`, so external data stays on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import scipy.sparse

from sparsify import coo, storage

FloatArray = npt.NDArray[np.float32]

HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)  # fp32 holds what they hold
_WEIGHTS = (ir.DataType.FLOAT, *HALF)
# What a Cast to fp32 makes of them is what `Linear.matrix` makes of them.
_CASTABLE = (*_WEIGHTS, ir.DataType.DOUBLE)
_SEEN_THROUGH = ("Identity", "Transpose", "Cast")


@dataclass(frozen=True)
class Unsupported:
    """A MatMul or Gemm that is not a linear layer as we understand it, and why."""

    node: ir.Node
    reason: str

    @property
    def name(self) -> str:
        return node_name(self.node)


@dataclass(frozen=True)
class Linear:
    """A MatMul or Gemm node with a constant weight.

    Attributes:
        node: the node.
        x: the activations.
        weight: the node's input that is the weight.
        source: where the data is stored: `weight` itself, or what feeds it through Identity, Transpose and Cast.
        tensor: the stored tensor, [K, N] or, if `transposed`, [N, K]; dimensions of 1 may stand before these.
        dtype: in which the layer multiplies: FLOAT or one of `HALF`. `tensor` may be of another where a Cast follows.
        transposed: whether stored and used orientation differ.
        transposed_x: whether X is used transposed (Gemm's transA).
        alpha, beta: factors of the product and of the bias; 1 for MatMul.
        bias: C of Gemm, constant or not; None when absent or multiplied by 0.
    """

    node: ir.Node
    x: ir.Value
    weight: ir.Value
    source: ir.Value
    tensor: ir.TensorProtocol
    dtype: ir.DataType
    transposed: bool
    transposed_x: bool = False
    alpha: float = 1.0
    beta: float = 1.0
    bias: ir.Value | None = None

    @property
    def name(self) -> str:
        return node_name(self.node)

    @property
    def output(self) -> ir.Value:
        return self.node.outputs[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(K, N)."""
        rows, columns = (int(d) for d in self.tensor.shape.numpy()[-2:])
        return (columns, rows) if self.transposed else (rows, columns)

    def matrix(self) -> FloatArray:
        """W float32 [K, N] as the layer uses it, without `alpha`. Reads the data."""
        stored = np.asarray(self.tensor.numpy(), np.float32).reshape(self.tensor.shape.numpy()[-2:])
        return stored.T if self.transposed else stored

    @property
    def is_huge(self) -> bool:
        """Whether the weight is sparse and too large for `matrix`: then there is `columns`."""
        return coo.is_huge(self.tensor)

    def columns(self) -> scipy.sparse.csc_array:
        """A huge W float32 [K, N] as the layer uses it, `alpha` included."""
        assert isinstance(self.tensor, coo.Coo)
        stored = self.tensor.matrix()
        return scipy.sparse.csc_array(stored.T if self.transposed else stored) * np.float32(self.alpha)

    def bias_vector(self) -> FloatArray | None:
        """beta * C as float32 [N] where C is constant and the same for every row; zeros if absent; else None."""
        _, n = self.shape
        if self.bias is None:
            return np.zeros(n, np.float32)
        c = constant(self.bias)
        if c is None or any(d != 1 for d in c.shape[:-1]) or c.size not in (1, n):
            return None
        return np.broadcast_to(np.float32(self.beta) * c.reshape(-1), (n,)).astype(np.float32)


def nodes(model: ir.Model) -> Iterator[ir.Node]:
    """All nodes: of the graph and its subgraphs in order, then of functions."""
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def opset(model: ir.Model) -> int:
    """The version of ONNX's own operators that `model` imports, under either of the domain's two names; 0 if none."""
    return model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))


def node_name(node: ir.Node) -> str:
    """The node's name; one made from its output, which is unique, when it has none."""
    return node.name or f"{node.op_type} -> {node.outputs[0].name}"


def constant(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """The data of `value` if it is the same in every run; None otherwise, and for overridable initializers."""
    if (found := _stored(value)) is None:
        return None
    array = found.tensor.numpy()
    for perm in found.perms:
        array = array.transpose(perm)
    return array if found.dtype is found.tensor.dtype else array.astype(np.float32)


def is_constant(value: ir.Value | None) -> bool:
    """Whether `constant` would give data; reads none."""
    return _stored(value) is not None


def scalar(value: ir.Value | None) -> float | None:
    """The number in a constant of one element; None for anything else."""
    if (found := _stored(value)) is None or found.tensor.size != 1 or found.tensor.dtype.is_string():
        return None
    return float(found.tensor.numpy().reshape(()))


def rank(value: ir.Value) -> int | None:
    """Number of dimensions; None when unknown."""
    return None if value.shape is None else len(value.shape)


def find_linear(node: ir.Node, *, huge: bool = False) -> Linear | Unsupported | None:
    """The linear layer that `node` is, or why it is none; None when it is neither MatMul nor Gemm.

    A MatMul over activations of unknown rank is taken for one over rank 2 or more. `huge`: the caller can do with a
    weight that cannot be made dense.
    """
    if node.domain != "" or node.op_type not in ("MatMul", "Gemm"):
        return None
    x, weight = (*node.inputs, None, None)[:2]
    if x is None or weight is None:
        return Unsupported(node, "an operand is missing")
    if (found := _stored(weight)) is None:
        return Unsupported(node, _why_not_constant(x, weight))
    if is_constant(x):
        return Unsupported(node, "both operands are constants: constant folding removes it")
    if reason := _no_matrix(found, x):
        return Unsupported(node, reason)
    if coo.is_huge(found.tensor) and not (huge and max(found.tensor.shape.numpy()) <= coo.MOST_SIDE):
        return Unsupported(node, "the weight is sparse, and too large to be made dense")
    # Only the last two dimensions are ever exchanged: see `_no_matrix`.
    flipped = sum(tuple(p) != tuple(range(len(p))) for p in found.perms) % 2 == 1
    if node.op_type == "MatMul":
        return Linear(node, x, weight, found.source, found.tensor, found.dtype, flipped)
    attributes = node.attributes
    alpha, beta = attributes.get_float("alpha", 1.0), attributes.get_float("beta", 1.0)
    bias = node.inputs[2] if len(node.inputs) > 2 and beta != 0 else None
    return Linear(
        node,
        x,
        weight,
        found.source,
        found.tensor,
        found.dtype,
        transposed=flipped ^ bool(attributes.get_int("transB", 0)),
        transposed_x=bool(attributes.get_int("transA", 0)),
        alpha=float(alpha),
        beta=float(beta),
        bias=bias,
    )


def as_it_is(layer: Linear) -> Linear:
    """`layer` by now: what it reads may be another value since a node before it was replaced."""
    found = find_linear(layer.node, huge=True)
    assert isinstance(found, Linear)  # only who feeds it changed
    return found


def _no_matrix(found: _Stored, x: ir.Value) -> str:
    """Why a constant that multiplies `x` from the right is no weight matrix of a kind that can be rewritten."""
    dims = [int(d) for d in found.tensor.shape.numpy()]
    axes = list(range(len(dims)))
    swapped = [*axes[:-2], *reversed(axes[-2:])]
    if len(dims) < 2 or any(d != 1 for d in dims[:-2]):
        return f"the weight has rank {len(dims)}, not 2"
    if len(dims) > 2 and (rank(x) or 0) < len(dims):
        return f"the weight has rank {len(dims)}, and that of the activations is not known to be as large"
    if any(list(perm) not in (axes, swapped) for perm in found.perms):
        return "a Transpose moves other dimensions of the weight than the last two"
    if found.dtype not in _WEIGHTS:
        return f"the weight is {found.dtype.name}, not FLOAT"
    if 0 in dims:
        return f"the weight is empty: {dims}"
    if found.tensor.size == 1:
        return "the weight is 1x1: a scalar"
    return "the activations have rank 1" if rank(x) == 1 else ""


def linear_layers(model: ir.Model) -> list[Linear]:
    """Linear layers of the graph and its subgraphs, in order. Functions have no weights of their own."""
    found = (find_linear(node) for node in model.graph.all_nodes())
    return [f for f in found if isinstance(f, Linear)]


def readers(source: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """The nodes and input positions that read `source`, directly or through Identity, Transpose and Cast."""
    for node, index in source.uses():
        if node.domain == "" and node.op_type in _SEEN_THROUGH and not node.outputs[0].is_graph_output():
            yield from readers(node.outputs[0])
        else:
            yield node, index


def sole_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads `value`, once; None if it is read otherwise or leaves the graph."""
    uses = value.uses()
    return next(iter(uses)).node if len(uses) == 1 and not value.is_graph_output() else None


def names(model: ir.Model) -> set[str]:
    """Names of all values of the graph and its subgraphs; a new name outside it shadows nothing."""
    return _names_in(model.graphs())


def _names_in(graphs: Iterable[ir.Graph]) -> set[str]:
    taken: set[str] = set()
    for graph in graphs:
        taken.update(v.name for v in graph.inputs if v.name)
        taken.update(graph.initializers)
        taken.update(v.name for node in graph for v in node.outputs if v.name)
    return taken


def fresh_name(taken: set[str] | ir.Graph, stem: str) -> str:
    """`stem`, or `stem_1`, ...: the first that is not in `taken` (see `names`), and from now on is.

    A graph stands for the names in it and in its subgraphs; who makes many names gives a set.
    """
    if isinstance(taken, ir.Graph):
        taken = _names_in([taken, *taken.subgraphs()])
    name, count = stem, 0
    while name in taken:
        count += 1
        name = f"{stem}_{count}"
    taken.add(name)
    return name


def add_initializer(graph: ir.Graph, array: npt.NDArray[Any], stem: str, taken: set[str]) -> ir.Value:
    """A new initializer of `graph` that holds `array`, named after `stem`."""
    tensor = storage.tensor(np.ascontiguousarray(array) if array.ndim else array, fresh_name(taken, stem), graph)
    value = ir.Value(
        name=tensor.name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def graph_of(node: ir.Node) -> ir.Graph:
    """The graph that `node` stands in."""
    if not isinstance(node.graph, ir.Graph):
        raise TypeError(f"{node_name(node)} is in no graph")
    return node.graph


def substitute(old: Sequence[ir.Node], new: Sequence[ir.Node]) -> None:
    """Put `new` in the place of `old`, which end in one value each; constants that nobody reads any more go.

    The last new output takes over all of the last old output: name, type, shape, documentation and readers, graph
    outputs included.
    """
    graph = graph_of(old[-1])
    new[-1].outputs[0].doc_string = old[-1].outputs[0].doc_string
    new[-1].outputs[0].metadata_props.update(old[-1].outputs[0].metadata_props)
    read = {id(v): v for node in old for v in node.inputs if v is not None}
    ir.convenience.replace_nodes_and_values(
        graph, old[-1], list(reversed(old)), list(new), [old[-1].outputs[0]], [new[-1].outputs[0]]
    )
    for value in read.values():
        drop_unused(value)


def drop_unused(value: ir.Value) -> None:
    """Remove a constant that nobody reads, and what only fed it."""
    if value.uses() or value.is_graph_output() or value.is_graph_input():
        return
    node = value.producer()
    if node is None:
        if isinstance(value.graph, ir.Graph) and value.is_initializer() and value.name is not None:
            del value.graph.initializers[value.name]
    elif node.graph is not None and is_constant(value):
        fed_by = [v for v in node.inputs if v is not None]
        node.graph.remove(node, safe=True)
        for source in fed_by:
            drop_unused(source)


def set_input(node: ir.Node, index: int, value: ir.Value) -> None:
    """Let `node` read `value` at `index`; what it read before goes if it was a constant for it alone."""
    before = node.inputs[index]
    node.replace_input_with(index, value)
    if before is not None:
        drop_unused(before)


def set_weight(layer: Linear, weight: FloatArray, taken: set[str]) -> None:
    """Let the node of `layer` use W [K, N], in a new initializer that it reads directly."""
    stored = weight.T if layer.node.attributes.get_int("transB", 0) else weight
    stem = layer.source.name or layer.name
    set_input(layer.node, 1, add_initializer(graph_of(layer.node), stored, stem, taken))


@dataclass(frozen=True)
class _Stored:
    """Where a constant is stored, the permutations between there and its use, in order, and the type it is used in."""

    source: ir.Value
    tensor: ir.TensorProtocol
    dtype: ir.DataType
    perms: tuple[tuple[int, ...], ...] = ()


def _stored(value: ir.Value | None) -> _Stored | None:
    """How the constant `value` is stored; None if it is none."""
    if value is None or value.is_graph_input():
        return None
    node = value.producer()
    if node is None:
        tensor = value.const_value if value.is_initializer() else None
        return None if tensor is None else _Stored(value, tensor, tensor.dtype)
    if node.domain != "":
        return None
    if node.op_type == "Constant":
        tensor = _constant_attribute(node)
        return None if tensor is None else _Stored(value, tensor, tensor.dtype)
    if node.op_type not in _SEEN_THROUGH or (found := _stored(node.inputs[0])) is None:
        return None
    if node.op_type == "Identity":
        return found
    if node.op_type == "Cast":
        to = ir.DataType(node.attributes.get_int("to", 0))
        widens = to is ir.DataType.FLOAT and found.dtype in _CASTABLE
        return replace(found, dtype=to) if widens or to is found.dtype else None
    default = tuple(reversed(range(len(found.tensor.shape))))
    return replace(found, perms=(*found.perms, tuple(node.attributes.get_ints("perm", default))))


def _constant_attribute(node: ir.Node) -> ir.TensorProtocol | None:
    """The tensor of a Constant node; None if it is sparse or given by the caller of a function."""
    # ir.convenience.get_const_tensor would rename the tensor, which changes the model.
    for kind, attribute in node.attributes.items():
        if attribute.is_ref():
            return None
        if kind == "value":
            return attribute.as_tensor()
        if kind in ("value_float", "value_floats"):
            return ir.tensor(np.array(attribute.value, np.float32))
        if kind in ("value_int", "value_ints"):
            return ir.tensor(np.array(attribute.value, np.int64))
    return None


def _why_not_constant(x: ir.Value, weight: ir.Value) -> str:
    if is_constant(x):
        return "the constant is on the left"
    if weight.is_graph_input() and weight.is_initializer():
        return f"the weight `{weight.name}` is an initializer that callers may override"
    producer = weight.producer()
    origin = "an input" if producer is None else f"made by {producer.op_type}"
    return f"neither operand is a constant (`{weight.name}` is {origin})"
