"""What follows a convolution and is a number a channel, and convolutions that compute it as well."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify.convolutions import TO_IMAGE, TO_ROWS, transposed
from sparsify.graph import FloatArray, add_initializer, constant, fresh_name, graph_of, node_name, sole_user, substitute

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Followers:
    """What follows a convolution and computes a Y + b, Y [B, N, H, W] its output and a and b [N].

    Attributes:
        nodes: in order; the last gives the result. Nothing else reads what they read.
        scale: a.
        shift: b.
        last: whether the result has channels last.
    """

    nodes: tuple[ir.Node, ...]
    scale: Numbers
    shift: Numbers
    last: bool


def followers(node: ir.Node, channels: int) -> Followers | None:
    """What follows the float32 convolution `node` and can become part of it; None where there is nothing to compute.

    Runtimes do so with some of them: behind something else than a convolution all would cost time of their own. They
    may stand behind transpositions, and casts of float32 to itself among them, as in models that came from TensorFlow.
    """
    value, nodes, computed, last = node.outputs[0], [], False, False
    scale, shift = np.ones(channels), np.zeros(channels)
    while (user := sole_user(value)) is not None and user.graph is node.graph and user.domain == "":
        if transposed(user.outputs[0], TO_IMAGE if last else TO_ROWS) is user:
            last = not last
        elif user.op_type == "Cast" and user.attributes.get_int("to", 0) == ir.DataType.FLOAT:
            pass
        elif (found := _numbers(user, value, channels, last)) is not None:
            scale, shift, computed = found[0] * scale, found[0] * shift + found[1], True
        else:
            break
        nodes.append(user)
        value = user.outputs[0]
    return Followers(tuple(nodes), scale, shift, last) if computed else None


def _numbers(node: ir.Node, value: ir.Value, channels: int, last: bool) -> tuple[Numbers, Numbers] | None:
    """(a, b) of a `node` that computes a Y + b of `value`, Y; None where it is another one."""
    if node.op_type == "BatchNormalization":
        return None if last or node.inputs[0] is not value else _normalization(node, channels)
    if node.op_type not in ("Add", "Mul", "Sub") or (node.op_type == "Sub" and node.inputs[0] is not value):
        return None
    other = constant(next((v for v in node.inputs if v is not value), None))
    if other is None or other.dtype != np.float32 or other.ndim > 4 or not np.all(np.isfinite(other)):
        return None
    along = other.shape[-1:] == (channels,) if last else other.shape[-3:] == (channels, 1, 1)
    if other.size != 1 and (other.size != channels or not along):
        return None
    numbers = np.broadcast_to(other.reshape(-1).astype(np.float64), channels)
    if node.op_type == "Mul":
        return numbers, np.zeros(channels)
    return np.ones(channels), numbers if node.op_type == "Add" else -numbers


def _normalization(node: ir.Node, channels: int) -> tuple[Numbers, Numbers] | None:
    read = [constant(value) for value in node.inputs[1:]]
    attributes = node.attributes
    trains, apart = attributes.get_int("training_mode", 0) == 1, attributes.get_int("spatial", 1) == 0
    if len(node.outputs) > 1 or trains or apart:
        return None
    if len(read) != 4 or any(v is None or v.dtype != np.float32 or v.shape != (channels,) for v in read):
        return None
    gain, shift, mean, variance = (np.asarray(v, np.float64) for v in read)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = gain / np.sqrt(variance + attributes.get_float("epsilon", 1e-5))
    return (scale, shift - mean * scale) if np.all(np.isfinite(scale)) else None


def absorb(node: ir.Node, kernel: FloatArray, taken: set[str]) -> tuple[ir.Node, FloatArray]:
    """A convolution that computes what follows `node` as well, and its kernel; those given where nothing does.

    Args:
        node: Conv with a kernel [N, ...], or ConvTranspose with a kernel [C, N, ...].
        kernel: its constant.
        taken: names of values.
    """
    enlarges = node.op_type == "ConvTranspose"
    axis, bias = int(enlarges), bias_of(node)
    own = constant(bias)
    if kernel.dtype != np.float32 or (bias is not None and own is None):
        return node, kernel
    if enlarges and node.attributes.get_int("group", 1) != 1:  # its kernel does not have all channels along one axis
        return node, kernel
    if (more := followers(node, kernel.shape[axis])) is None:
        return node, kernel
    graph, name, weight = graph_of(node), node_name(node), node.inputs[1]
    with np.errstate(over="ignore"):
        total = (more.shift if own is None else more.shift + more.scale * own).astype(np.float32)
        scale = np.expand_dims(more.scale, [a for a in range(kernel.ndim) if a != axis])
        scaled = (kernel * scale).astype(np.float32)
    # What is finite one after the other need not be at once.
    if not (np.all(np.isfinite(total)) and np.all(np.isfinite(scaled))):
        return node, kernel
    bias = add_initializer(graph, total, f"{name}/bias", taken)
    if np.any(more.scale != 1):
        kernel = scaled
        weight = add_initializer(graph, kernel, f"{node.inputs[1].name}/scaled", taken)  # type: ignore[union-attr]
    attributes = list(node.attributes.values())
    conv = ir.Node("", node.op_type, [node.inputs[0], weight, bias], attributes, name=name)
    conv.meta.update(node.meta)
    conv.metadata_props.update(node.metadata_props)
    new = [conv]
    if more.last:
        new.append(ir.node("Transpose", [conv.outputs[0]], {"perm": list(TO_ROWS)}, name=f"{name}/last"))
    name_between(new, more.nodes[-1].outputs[0], taken)
    substitute([node, *more.nodes], new)
    return conv, kernel


def bias_of(node: ir.Node) -> ir.Value | None:
    """The bias of a convolution."""
    return node.inputs[2] if len(node.inputs) > 2 else None


def name_between(new: Iterable[ir.Node], output: ir.Value, taken: set[str]) -> None:
    """Name the values between `new`, the last of which makes `output`, after that."""
    *made, _ = new
    for node in made:
        node.outputs[0].name = fresh_name(taken, f"{output.name}/{node.op_type}")
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
