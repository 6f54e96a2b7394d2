"""Remove hidden units that do nothing, exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify.activations import activation
from sparsify.graph import (
    HALF,
    FloatArray,
    Linear,
    add_initializer,
    constant,
    find_linear,
    fresh_name,
    graph_of,
    is_constant,
    names,
    rank,
    readers,
    set_input,
    set_weight,
    sole_user,
    substitute,
)
from sparsify.rewrite import Change, Event, Pass, Refusal, layers


@dataclass(frozen=True)
class _Pair:
    """Two layers with nothing but biases and activations between them.

    Attributes:
        first, second: hidden = first(x); y = second(f(hidden)).
        biases: constants [H] between them, by the node and input that reads them.
        hidden: the values [..., H] between them.
        constants: [H], what each unit would be if its column of W1 were 0; NaN where that is not known.
    """

    first: Linear
    second: Linear
    biases: list[tuple[ir.Node, int]]
    hidden: list[ir.Value]
    constants: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shrink(Pass):
    """Removes hidden units between two linear layers that cannot change the output, or are constant.

    What:
        A [K, H] -> biases, activations -> B [H, N]: columns of A, their biases and rows of B are taken out, and
        what constant units contributed is added to B's bias. Repeated until nothing more is found.
    When it fires:
        Row j of B is all zeros; or column j of A is all zeros, so that unit j is f(b_j) for every input.
    When it refuses:
        A's output reaches no linear layer through Add of a constant and known elementwise functions alone; is
        read elsewhere; a weight is shared; a bias between them is not a constant; no unit is idle.
        One unit always stays, so that no shape becomes empty.
    Mathematics:
        y_n = sum_j f(x a_j + b_j) w_jn + c_n = sum_{j kept} f(x a_j + b_j) w_jn + (c_n + sum_{j: a_j = 0} f(b_j) w_jn)
    Cost:
        Reads each weight; makes both layers smaller by the same share.
    Drift:
        Rounding: terms that were 0 are left out and constant ones are added first. Exact as long as the removed
        units are finite: 0 * inf would have been NaN.
    Source:
        Constant propagation through zero weights; as in Serra, Kumar, Ramalingam, "Lossless Compression of Deep
        Neural Networks", 2020.
    """

    name: ClassVar[str] = "shrink"

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        taken = names(model)
        found = layers(model)
        started = [layer for layer in found if isinstance(layer, Linear)]
        current = [layer.node for layer in started]  # the node that a layer is by now
        reasons = [""] * len(current)
        changed = True
        while changed:
            changed = False
            for i in reversed(range(len(current))):  # the last first: rows it gives up are columns of the one before
                layer = find_linear(current[i])
                pair = _pair(layer) if isinstance(layer, Linear) else "it is no linear layer any more"
                if isinstance(pair, str):
                    reasons[i] = reasons[i] or pair
                elif _idle(pair).any():
                    second = current.index(pair.second.node)
                    current[second] = _remove(pair, taken)
                    changed = True
                else:
                    reasons[i] = reasons[i] or "no hidden unit is idle"
        outcomes = (_outcome(layer, node, why) for layer, node, why in zip(started, current, reasons, strict=True))
        for each in found:
            yield each if isinstance(each, Refusal) else next(outcomes)


def _outcome(before: Linear, node: ir.Node, reason: str) -> Change | Refusal:
    (k, n), name = before.shape, before.name
    after = find_linear(node)
    if not isinstance(after, Linear) or after.shape == (k, n):
        return Refusal(name, reason, {"shape": [k, n]})
    smaller_k, smaller_n = after.shape
    facts = {"shape_before": [k, n], "shape": [smaller_k, smaller_n]}
    return Change(name, f"{k}x{n} became {smaller_k}x{smaller_n}", facts)


def _pair(first: Linear) -> _Pair | str:
    """The pair that `first` begins; or why it begins none."""
    _, h = first.shape
    if first.dtype in HALF:
        return f"it is in {first.dtype.name}, where constant units would be summed with less precision"
    if first.bias is not None and not is_constant(first.bias):
        return "its bias is not a constant"
    at = first.bias_vector()
    state = np.full(h, np.nan) if at is None else at.astype(np.float64)
    biases, hidden = [], [first.output]
    while True:
        value = hidden[-1]
        if value.is_graph_output():
            return "its output is an output of the model"
        user = sole_user(value)
        second = None if user is None else find_linear(user)
        if isinstance(second, Linear) and second.x is value:
            break
        if user is not None and (index := _bias_of(user, value, h)) is not None:
            biases.append((user, index))
            state = state + np.broadcast_to(np.asarray(constant(user.inputs[index]), np.float64).reshape(-1), (h,))
            hidden.append(user.outputs[0])
        elif (found := activation(value)) is not None:
            with np.errstate(all="ignore"):
                state = found.function(state)
            hidden += [node.outputs[0] for node in found.nodes]
        else:
            readers_ = ", ".join(sorted({use.node.op_type for use in value.uses()})) or "nothing"
            return f"its output is read by {readers_} before another linear layer"
    if second.dtype is not first.dtype or second.transposed_x:
        return f"`{second.name}` reads its output transposed or in another type"
    for layer in (first, second):
        if layer.source.is_graph_output() or len(list(readers(layer.source))) != 1:
            return f"the weight of `{layer.name}` has other users"
    return _Pair(first, second, biases, hidden, state)


def _bias_of(node: ir.Node, value: ir.Value, h: int) -> int | None:
    """The input at which an Add adds a constant scalar or [H] to `value`."""
    if node.op_type != "Add" or node.domain != "":
        return None
    index = 1 if node.inputs[0] is value else 0
    c = node.inputs[index]
    array = constant(c)
    if array is None or array.dtype != np.float32 or array.size not in (1, h) or array.ndim > (rank(value) or 2):
        return None
    return index if array.ndim == 0 or array.shape[-1] == array.size else None


def _idle(pair: _Pair) -> npt.NDArray[np.bool_]:
    """Which units [H] can go."""
    unread = ~pair.second.matrix().any(axis=1)
    fixed = ~pair.first.matrix().any(axis=0) & np.isfinite(pair.constants)
    idle = np.asarray(unread | fixed)
    if idle.all():
        idle[0] = False
    return idle


def _remove(pair: _Pair, taken: set[str]) -> ir.Node:
    """Take the idle units of `pair` out; returns the node of the second layer."""
    idle = _idle(pair)
    keep = ~idle
    w1, w2 = pair.first.matrix(), pair.second.matrix()
    # Unread units count for nothing, known or not: 0 * NaN must not spoil the sum.
    read = idle & w2.any(axis=1)
    extra = (float(pair.second.alpha) * (pair.constants[read] @ w2[read].astype(np.float64))).astype(np.float32)
    set_weight(pair.first, w1[:, keep], taken)
    set_weight(pair.second, w2[keep], taken)
    if pair.first.bias is not None:
        _slice(pair.first.node, 2, keep, taken)
    elif len(pair.first.node.inputs) > 2:
        pair.first.node.resize_inputs(2)  # multiplied by 0, and now of the wrong shape
    for node, index in pair.biases:
        _slice(node, index, keep, taken)
    for value in pair.hidden:
        if value.shape is not None and len(value.shape):
            value.shape = ir.Shape([*value.shape[:-1], int(keep.sum())])
    return _add_to_bias(pair.second, extra, taken) if extra.any() else pair.second.node


def _slice(node: ir.Node, index: int, keep: npt.NDArray[np.bool_], taken: set[str]) -> None:
    """Keep some of the last dimension of a constant input, if it has one of that length."""
    value = node.inputs[index]
    array = constant(value)
    if value is None or array is None or not array.ndim or array.shape[-1] != len(keep):
        return
    stem = value.name or f"{node.outputs[0].name}.bias"
    set_input(node, index, add_initializer(graph_of(node), array[..., keep], stem, taken))


def _add_to_bias(layer: Linear, extra: FloatArray, taken: set[str]) -> ir.Node:
    """Add `extra` [N] to the output of `layer`, in its bias if it has one of its own; returns the layer's node."""
    node, graph = layer.node, graph_of(layer.node)
    stem = f"{layer.output.name}.bias"
    user = sole_user(layer.output)
    if user is not None and (index := _bias_of(user, layer.output, layer.shape[1])) is not None:
        total = add_initializer(graph, np.asarray(constant(user.inputs[index])) + extra, stem, taken)
        set_input(user, index, total)
        return node
    bias = layer.bias_vector()
    if node.op_type == "Gemm" and bias is not None:
        node.resize_inputs(3)
        set_input(node, 2, add_initializer(graph, bias + extra, stem, taken))
        node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
        return node
    same = ir.Node("", node.op_type, node.inputs, attributes=list(node.attributes.values()), name=layer.name)
    same.meta.update(node.meta)
    same.outputs[0].name = fresh_name(taken, f"{layer.output.name}/product")
    same.outputs[0].type, same.outputs[0].shape = layer.output.type, layer.output.shape
    add = ir.node("Add", [same.outputs[0], add_initializer(graph, extra, stem, taken)], name=f"{layer.name}/add")
    substitute([node], [same, add])
    return same
