"""Convolutions of one point between two layouts: images have channels first, the rows of a product have them last."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify.graph import constant

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


def of_channels(node: ir.Node, value: ir.Value, channels: int) -> tuple[Numbers, Numbers] | None:
    """(a, b), [N] each, of a `node` that computes a Y + b of `value`, Y [B, N, H, W]; None where it is another one.

    Runtimes make such nodes part of the convolution that they follow: apart from it they would cost time of their own.
    """
    if node.domain != "" or node.op_type not in ("Add", "Mul", "BatchNormalization"):
        return None
    if node.op_type == "BatchNormalization":
        return _normalization(node, channels) if node.inputs[0] is value else None
    other = constant(next((v for v in node.inputs if v is not value), None))
    if other is None or other.dtype != np.float32 or other.ndim > 4:
        return None
    if other.size != 1 and (other.size != channels or other.shape[-3:] != (channels, 1, 1)):
        return None
    numbers = np.broadcast_to(other.reshape(-1).astype(np.float64), channels)
    return (np.ones(channels), numbers) if node.op_type == "Add" else (numbers, np.zeros(channels))


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
