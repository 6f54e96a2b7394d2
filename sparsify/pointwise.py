"""Convolutions of one point between two layouts: images have channels first, the rows of a product have them last."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify.graph import constant, sole_user

Numbers = npt.NDArray[np.float64]

TO_ROWS, TO_IMAGE = (0, 2, 3, 1), (0, 3, 1, 2)  # permutations of [B, C, H, W] and back
# Keys of the `meta` of a MatMul that was a Conv, in memory only: its kernel's name, and the points of an image that it
# sees, where all images have as many.
KERNEL, POINTS = "pointwise", "points"


def is_pointwise(node: ir.Node) -> bool:
    """Whether `node`, a product or what it became, was a convolution."""
    return KERNEL in node.meta


def rows(node: ir.Node, usual: int) -> int:
    """The rows that a linear layer sees: those that were observed, else the points of one image, else `usual`.

    What follows a pool over all points sees one, however many the layers before it see.
    """
    return int(node.meta.get("rows", node.meta.get(POINTS, usual)))


def transposed(value: ir.Value | None, perm: tuple[int, ...]) -> ir.Node | None:
    """The Transpose by `perm` that makes `value`, if one does."""
    node = None if value is None else value.producer()
    if node is None or (node.domain, node.op_type) != ("", "Transpose"):
        return None
    return node if tuple(node.attributes.get_ints("perm", [])) == perm else None


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
