"""The part that is the same in every rewrite of a linear layer into a sparse operator.

    alpha * X W + beta * C   ->   Operator(X, positions..., values, shape, [scale,] bias)

alpha goes into the values. beta * C goes into the bias where C is constant and the same for every row;
any other C is added afterwards. A transposed X is transposed by a node of its own. Layers in half precision are cast
to fp32 and back: they are computed more exactly than they were. Layers that share a
weight share its encoding.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify import formats, ops, storage
from sparsify.convolutions import rows as seen
from sparsify.convolutions import window_of
from sparsify.graph import (
    HALF,
    FloatArray,
    Linear,
    add_initializer,
    as_it_is,
    constant,
    fresh_name,
    graph_of,
    names,
    opset,
    substitute,
)
from sparsify.rewrite import Change, Event, Pass, Refusal, chosen, layers, read_ahead
from sparsify.solvers.quantize import LEVELS

MAX_INPUTS = 2**22  # kMostInputs in kernels/decode.h
_CACHED = 2**18  # weights at a time: what is made of them on the way stays in a cache
_MEASURED = 2**23  # weights, at most, that are measured of a layer of a large model: 32 MiB in fp32, more than a cache
MAX_NONZEROS = (2**31 - 1) // (255 * LEVELS)  # per column in int8: |sum of u8 * s8| must fit an int32

_VALUES = {"float32": ops.Values.FP32, "int8": ops.Values.INT8, "bfloat16": ops.Values.BF16}


ZEROS = "zeros"  # key of a node's `meta`: share of its inputs that are 0, where that was observed


class NotEncodable(Exception):
    """A weight that a format cannot hold; the message is the reason."""


@dataclass(frozen=True)
class Encoded:
    """A weight as an operator reads it: W [K, N] and, for integers, the scale [N] of each column."""

    weight: formats.EncodedWeight
    scale: npt.NDArray[np.float32] | None = None

    @property
    def operator(self) -> ops.Operator:
        return ops.Operator(_VALUES[self.weight.values.dtype.name], self.weight.encoding, ops.Activation.NONE)

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes + (0 if self.scale is None else self.scale.nbytes)


@dataclass
class _Scope:
    """What one run of a pass over a model remembers."""

    model: ir.Model
    taken: set[str]
    # Inputs already made, by graph, storage and use of the weight; the value at the end keeps the id alive.
    shared: dict[tuple[object, ...], tuple[dict[str, ir.Value], ir.Value]] = field(default_factory=dict)
    measured: dict[tuple[object, ...], Any] = field(
        default_factory=dict
    )  # Cost of layers of a large model, by likeness


@dataclass(frozen=True)
class Lowering(Pass):
    """Base of the passes that turn linear layers into sparse operators. Subclasses say how a weight is encoded."""

    min_sparsity: float = 0.0  # share of zeros below which a layer is left alone
    min_speedup: float = 0.0  # times faster than the dense layer, as measured; 0: do not measure
    rows: int = 128  # rows of X to measure with, where nobody has observed how many there are
    threads: int = 1  # threads to measure with

    format: ClassVar[str]
    takes_huge: ClassVar[bool] = False  # whether there is `encode_huge`

    @abstractmethod
    def encode(self, weight: FloatArray) -> Encoded:
        """W float32 [K, N] as the operator reads it; raises NotEncodable."""

    def encode_huge(self, layer: Linear) -> Encoded:
        """The weight of a layer that cannot be made dense, as the operator reads it."""
        raise NotImplementedError

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        scope = _Scope(model, names(model))
        for layer in read_ahead(layers(model, huge=self.takes_huge)):
            done = layer if isinstance(layer, Refusal) else self._lower(scope, as_it_is(layer))
            if isinstance(layer, Linear) and isinstance(done, Change) and storage.is_large(model.graph):
                storage.release(layer.tensor)
            yield done

    def _lower(self, scope: _Scope, layer: Linear) -> Change | Refusal:
        if (choice := chosen(layer)) is not None and choice.format != self.name:
            return Refusal(layer.name, f"the search chose `{choice}`", {"shape": list(layer.shape)})
        if layer.is_huge:
            return self._lower_huge(scope, layer)
        matrix = layer.matrix() if layer.alpha == 1 else layer.matrix() * np.float32(layer.alpha)
        sparsity = 1 - np.count_nonzero(matrix) / matrix.size
        facts: dict[str, Any] = {"shape": list(layer.shape), "sparsity": sparsity, "bytes_before": layer.tensor.nbytes}
        if sparsity < self.min_sparsity:
            reason = f"the weight is {sparsity:.0%} sparse, less than the {self.min_sparsity:.0%} asked for"
            return Refusal(layer.name, reason, facts)
        if layer.shape[0] > MAX_INPUTS:
            return Refusal(layer.name, f"{layer.shape[0]} inputs are more than the {MAX_INPUTS} of a kernel", facts)
        try:
            encoded = self.encode(matrix)
        except NotEncodable as error:
            return Refusal(layer.name, str(error), facts)
        facts |= self._facts(encoded)
        if opset(scope.model) < encoded.operator.min_opset:
            return Refusal(layer.name, f"opset {opset(scope.model)} is below {encoded.operator.min_opset}", facts)
        bias = layer.bias_vector()
        arrays = ops.inputs_of(
            encoded.weight, np.zeros(layer.shape[1], np.float32) if bias is None else bias, encoded.scale
        )
        if self.min_speedup > 0:
            facts |= self._measure(scope, matrix, arrays, encoded, layer)
            if facts["speedup"] < self.min_speedup:
                return Refusal(layer.name, self._too_slow(facts), facts)
        return _put(scope, layer, encoded, arrays, facts, add_bias=bias is None)

    def _lower_huge(self, scope: _Scope, layer: Linear) -> Change | Refusal:
        """The same for a layer that has no dense form to be compared with."""
        encoded = self.encode_huge(layer)
        facts = {"shape": list(layer.shape), "bytes_before": layer.tensor.nbytes, **self._facts(encoded)}
        if opset(scope.model) < encoded.operator.min_opset:
            return Refusal(layer.name, f"opset {opset(scope.model)} is below {encoded.operator.min_opset}", facts)
        bias = layer.bias_vector()
        zeros = np.zeros(layer.shape[1], np.float32)
        arrays = ops.inputs_of(encoded.weight, zeros if bias is None else bias, encoded.scale)
        return _put(scope, layer, encoded, arrays, facts, add_bias=bias is None)

    def _facts(self, encoded: Encoded) -> dict[str, Any]:
        return {
            "format": self.format,
            "encoding": encoded.weight.encoding.name.lower(),
            "sparsity": encoded.weight.sparsity,
            "bytes_after": encoded.nbytes,
        }

    def _measure(
        self, scope: _Scope, matrix: FloatArray, arrays: dict[str, npt.NDArray[Any]], encoded: Encoded, layer: Linear
    ) -> dict[str, Any]:
        """Both times; in a large model of the first columns of one of all layers that are alike, in proportion."""
        from sparsify import cost  # only who measures needs onnxruntime

        rows, zeros = seen(layer.node, self.rows), float(layer.node.meta.get(ZEROS, 0.0))
        settings: dict[str, Any] = {"rows": rows, "threads": self.threads, "zeros": zeros}
        window = settings["window"] = window_of(layer.node)
        share = 1.0
        if not storage.is_large(scope.model.graph) or (window is not None and window.transposed):
            found = cost.measure(matrix, arrays, encoded.operator, **settings)
        else:
            columns = min(max(_MEASURED // matrix.shape[0], 64), matrix.shape[1])
            share = columns / matrix.shape[1]
            padding = round(cost.padded(matrix[:, :64]) / matrix[:, :64].size, 2)
            biased = bool(arrays["bias"].any())
            alike = (
                layer.shape,
                encoded.operator,
                round(encoded.weight.sparsity, 3),
                padding,
                biased,
                *settings.values(),
            )
            if alike not in scope.measured:
                first = np.ascontiguousarray(matrix[:, :columns])
                part = self.encode(first)
                arrays = ops.inputs_of(part.weight, arrays["bias"][:columns], part.scale)
                scope.measured[alike] = cost.measure(first, arrays, part.operator, **settings)
            found = scope.measured[alike]
        return {
            "rows": rows,
            "dense_ms": found.dense_ms / share,
            "rewritten_ms": found.rewritten_ms / share,
            "speedup": found.speedup,
        }

    def _too_slow(self, facts: Mapping[str, Any]) -> str:
        """The verdict with both times and the sparsity from which on it could turn.

        If all of the operator's time were spent on non-zeros, it would need (1 - s') / (1 - s) =
        dense / (rewritten * min_speedup). What it spends otherwise makes the true break-even higher.
        """
        needed = 1 - (1 - facts["sparsity"]) * facts["dense_ms"] / (facts["rewritten_ms"] * self.min_speedup)
        return (
            f"{facts['rewritten_ms']:.3f} ms against {facts['dense_ms']:.3f} ms dense at {_rows(facts['rows'])}: "
            f"{_below(facts['speedup'], self.min_speedup)}x, less than the {self.min_speedup:g}x asked for; "
            f"it would need to be more than {needed:.0%} sparse"
        )


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"


def _below(value: float, limit: float) -> str:
    """`value` in as many digits as show that it is below `limit`, and at least two after the point."""
    return next((text for digits in range(2, 9) if float(text := f"{value:.{digits}f}") < limit), str(value))


def _put(
    scope: _Scope,
    layer: Linear,
    encoded: Encoded,
    arrays: dict[str, npt.NDArray[Any]],
    facts: dict[str, Any],
    *,
    add_bias: bool,
) -> Change:
    """Let the model call the operator instead of the layer; `add_bias`: C could not become part of it."""
    scope.model.opset_imports.setdefault("", opset(scope.model))  # it may be imported as `ai.onnx`
    scope.model.opset_imports.pop("ai.onnx", None)
    ops.add_operator(scope.model, encoded.operator)
    _replace(scope, layer, encoded.operator, arrays, add_bias=add_bias)
    saved = f"{layer.tensor.nbytes} to {encoded.nbytes} bytes"
    return Change(layer.name, f"now {encoded.operator.name}, {facts['sparsity']:.0%} sparse, {saved}", facts)


def _replace(
    scope: _Scope, layer: Linear, operator: ops.Operator, arrays: dict[str, npt.NDArray[Any]], add_bias: bool
) -> None:
    """Put the operator in the place of the layer's node; `add_bias`: C could not become part of it."""
    x, new = activations_of(layer, scope.taken)
    new.append(ir.Node(ops.DOMAIN, operator.name, [x, *_inputs(scope, layer, arrays)], name=layer.name))
    new[-1].meta.update(layer.node.meta)
    new[-1].metadata_props.update(layer.node.metadata_props)
    new += narrowed(layer, new[-1].outputs[0], scope.taken)
    if add_bias:
        new += bias_nodes(layer, new[-1].outputs[0], scope.taken)
    substitute([layer.node], new)


def _inputs(scope: _Scope, layer: Linear, arrays: dict[str, npt.NDArray[Any]]) -> list[ir.Value]:
    """The operator's constant inputs; all but the bias are shared between uses of the same weight."""
    graph = graph_of(layer.node)
    key = (graph, id(layer.source), layer.transposed, layer.alpha)
    stem = layer.source.name or layer.name
    if key not in scope.shared:
        made = {n: add_initializer(graph, a, f"{stem}.{n}", scope.taken) for n, a in arrays.items() if n != "bias"}
        scope.shared[key] = made, layer.source
    values, _ = scope.shared[key]
    bias = add_initializer(graph, arrays["bias"], f"{layer.output.name}.bias", scope.taken)
    return [*values.values(), bias]


def integer_obstacle(weight: FloatArray) -> str:
    """Why W [K, N] cannot be multiplied in int8; empty when it can."""
    rows = max(_CACHED // max(weight.shape[1], 1), 1)
    if not all(np.isfinite(weight[at : at + rows]).all() for at in range(0, len(weight), rows)):
        return "the weight holds a NaN or an infinity"
    if weight.shape[0] <= MAX_NONZEROS:  # no need to count
        return ""
    if (most := int(np.count_nonzero(weight, axis=0).max())) > MAX_NONZEROS:
        return f"a column has {most} non-zeros; an int32 sum is safe up to {MAX_NONZEROS}"
    return ""


def activations_of(layer: Linear, taken: set[str]) -> tuple[ir.Value, list[ir.Node]]:
    """X [..., K] of `layer` in fp32 and as it is multiplied, and the nodes that bring it there."""
    x, nodes, stem = layer.x, [], layer.output.name
    if layer.dtype in HALF:
        nodes.append(ir.node("Cast", [x], {"to": ir.DataType.FLOAT}, name=f"{layer.name}/widen"))
        x = named(nodes[-1], f"{stem}/x_wide", taken, ir.DataType.FLOAT)
    if layer.transposed_x:
        nodes.append(ir.node("Transpose", [x], {"perm": [1, 0]}, name=f"{layer.name}/transpose"))
        x = named(nodes[-1], f"{stem}/x_transposed", taken, x.dtype)
    return x, nodes


def narrowed(layer: Linear, product: ir.Value, taken: set[str]) -> list[ir.Node]:
    """The node that brings an fp32 product back to the type of a layer in half precision; none for others."""
    if layer.dtype not in HALF:
        return []
    named(product, f"{layer.output.name}/wide", taken, ir.DataType.FLOAT)
    return [ir.node("Cast", [product], {"to": layer.dtype}, name=f"{layer.name}/narrow")]


def bias_nodes(layer: Linear, product: ir.Value, taken: set[str]) -> list[ir.Node]:
    """Nodes that compute product + beta * C, the last giving the sum; none if the layer has no C.

    `product` gets a name and, being of the layer's output's shape and type, those too.
    """
    if layer.bias is None:
        return []
    named(product, f"{layer.output.name}/product", taken, layer.output.dtype)
    product.shape = layer.output.shape
    c, graph, nodes = layer.bias, graph_of(layer.node), []
    if layer.beta != 1 and (known := constant(c)) is not None:
        c = add_initializer(graph, (np.float32(layer.beta) * known).astype(known.dtype), f"{c.name}.scaled", taken)
    elif layer.beta != 1:
        beta = add_initializer(graph, np.array(layer.beta, layer.dtype.numpy()), f"{layer.output.name}/beta", taken)
        nodes.append(ir.node("Mul", [c, beta], name=f"{layer.name}/scale"))
        c = named(nodes[0], f"{layer.output.name}/scaled", taken, layer.output.dtype)
    return [*nodes, ir.node("Add", [product, c], name=f"{layer.name}/add")]


def named(made: ir.Node | ir.Value, stem: str, taken: set[str], dtype: ir.DataType | None) -> ir.Value:
    """A new value, or the only output of a new node, under a fresh name and with its type."""
    value = made.outputs[0] if isinstance(made, ir.Node) else made
    value.name = fresh_name(taken, stem)
    value.type = None if dtype is None else ir.TensorType(dtype)
    return value
