"""Convolutions that are linear layers, between two layouts: images have channels first, the rows of a product last.

A transposed convolution of C channels to N with a stride of s and a kernel of T s points along each axis adds X[i]
times W[s t + a] to Y[s i + s t + a], for a in 0..s-1 and t in 0..T-1. At q = i + t that is, for all a at once,

    Y[s q + a] = sum_t X[q - t] W[s t + a]

so with both axes a row of T^2 C numbers of the image times a matrix [T^2 C, s^2 N] gives s^2 points of the result.
Padding leaves out points around it. A convolution of 1x1 is the case of s = T = 1.

Source: Shi et al., "Is the deconvolution layer the same as a convolutional layer?", 2016.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify.graph import FloatArray, sole_user

TO_ROWS, TO_IMAGE = (0, 2, 3, 1), (0, 3, 1, 2)  # permutations of [B, C, H, W] and back
# Keys of the `meta` of a MatMul that was a convolution, in memory only: which one, and the rows of an image, where all
# images have as many.
CONVOLUTION, POINTS = "convolution", "points"
_INTERLEAVE = (0, 1, 3, 2, 4, 5)  # of [B, rows, columns, s, s, N]: points of one line of the result stand together

Constant = Callable[[str, npt.NDArray[Any]], ir.Value]  # a value that holds an array, named after a text


@dataclass(frozen=True)
class Window:
    """What a row of the product reads and makes.

    Attributes:
        taps: T, points of the image that it reads along each axis.
        stride: s, points of the result that it makes along each axis; 1 for a convolution of 1x1 only.
        height, width: of the image; 0 for a convolution of 1x1, which takes any.
        pads: points of the result that are left out: above, left, below, right.
    """

    taps: int = 1
    stride: int = 1
    height: int = 0
    width: int = 0
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def transposed(self) -> bool:
        """Whether it is that of a transposed convolution."""
        return self.stride > 1

    @property
    def op_type(self) -> str:
        """Of the convolution."""
        return "ConvTranspose" if self.transposed else "Conv"

    @property
    def points(self) -> int:
        """Points of the result that a row makes: s^2."""
        return self.stride**2

    @property
    def lines(self) -> tuple[int, int]:
        """Rows of the product along each axis of one image."""
        return self.height + self.taps - 1, self.width + self.taps - 1

    def images(self, rows: int) -> int:
        """How many images have about so many rows together."""
        return max(rows // math.prod(self.lines), 1)

    def matrix(self, kernel: FloatArray) -> FloatArray:
        """[T^2 C, s^2 N] of a kernel [C, N, T s, T s], or [K, N] of [N, K, 1, 1]."""
        if not self.transposed:
            return kernel[:, :, 0, 0].T
        (c, n), t, s = kernel.shape[:2], self.taps, self.stride
        return kernel.reshape(c, n, t, s, t, s).transpose(2, 4, 0, 3, 5, 1).reshape(t * t * c, s * s * n)

    def kernel(self, matrix: FloatArray) -> FloatArray:
        """The kernel that `matrix` was made of."""
        if not self.transposed:
            return matrix.T[:, :, None, None]
        (k, n), t, s = matrix.shape, self.taps, self.stride
        c, n = k // t**2, n // self.points
        return matrix.reshape(t, t, c, s, s, n).transpose(2, 5, 0, 3, 1, 4).reshape(c, n, t * s, t * s)

    def to_rows(self, image: ir.Value, name: str, constant: Constant) -> list[ir.Node]:
        """Nodes from an image [B, C, H, W] to the rows [B, H', W', T^2 C] of the product, the last giving these."""
        nodes = [ir.node("Transpose", [image], {"perm": list(TO_ROWS)}, name=f"{name}/rows")]
        if self.taps == 1:
            return nodes
        margin = self.taps - 1
        around = constant("around", np.array([0, margin, margin, 0] * 2, np.int64))
        nodes.append(ir.node("Pad", [nodes[0].outputs[0], around], name=f"{name}/pad"))
        axes, padded = constant("axes", np.array([1, 2], np.int64)), nodes[1].outputs[0]
        for taps in itertools.product(range(self.taps), repeat=2):
            first = margin - np.array(taps, np.int64)
            ends = [constant("starts", first), constant("ends", first + self.lines)]
            nodes.append(ir.node("Slice", [padded, *ends, axes], name=f"{name}/tap{taps[0]}{taps[1]}"))
        taken = [node.outputs[0] for node in nodes[2:]]
        return [*nodes, ir.node("Concat", taken, {"axis": 3}, name=f"{name}/taps")]

    def to_image(self, rows: ir.Value, channels: int, name: str, constant: Constant) -> list[ir.Node]:
        """Nodes from the product [B, H', W', s^2 N] to the image [B, N, ...], N `channels`, the last giving this."""
        nodes: list[ir.Node] = []
        if self.transposed:
            (height, width), s = self.lines, self.stride
            apart = constant("apart", np.array([-1, height, width, s, s, channels], np.int64))
            nodes.append(ir.node("Reshape", [rows, apart], name=f"{name}/apart"))
            nodes.append(
                ir.node("Transpose", [nodes[-1].outputs[0]], {"perm": list(_INTERLEAVE)}, name=f"{name}/lines")
            )
            points = constant("points", np.array([-1, s * height, s * width, channels], np.int64))
            nodes.append(ir.node("Reshape", [nodes[-1].outputs[0], points], name=f"{name}/points"))
            if any(self.pads):
                top, left, bottom, right = self.pads
                sides = ([top, left], [s * height - bottom, s * width - right], [1, 2])
                cut = [constant(n, np.array(a, np.int64)) for n, a in zip(("from", "to", "axes"), sides, strict=True)]
                nodes.append(ir.node("Slice", [nodes[-1].outputs[0], *cut], name=f"{name}/cut"))
        last = nodes[-1].outputs[0] if nodes else rows
        return [*nodes, ir.node("Transpose", [last], {"perm": list(TO_IMAGE)}, name=f"{name}/image")]


POINT = Window()


@dataclass(frozen=True)
class Convolution:
    """What a product was.

    Attributes:
        kernel: name of its kernel.
        window: of the product.
        attributes: of the node.
    """

    kernel: str
    window: Window
    attributes: tuple[ir.Attr, ...]


def window_of(node: ir.Node) -> Window | None:
    """The window of `node`, a product or what it became, where it was a convolution."""
    found = node.meta.get(CONVOLUTION)
    return None if found is None else found.window


def rows(node: ir.Node, usual: int) -> int:
    """The rows that a linear layer sees: those that were observed, else those of one image, else `usual`.

    What follows a pool over all points sees one, however many the layers before it see.
    """
    return int(node.meta.get("rows", node.meta.get(POINTS, usual)))


def before(product: ir.Node) -> list[ir.Node] | None:
    """What `Window.to_rows` put before `product`; None where that has changed, or something else reads of it."""
    last = product.inputs[0].producer() if product.inputs[0] is not None else None
    if last is None or sole_user(last.outputs[0]) is not product:
        return None
    if product.meta[CONVOLUTION].window.taps == 1:
        return [last] if transposed(last.outputs[0], TO_ROWS) is last else None
    taps = [value.producer() for value in last.inputs if value is not None]
    pad = taps[0].inputs[0].producer() if taps and taps[0] is not None and taps[0].inputs[0] is not None else None
    if pad is None or [n.op_type for n in (pad, last)] != ["Pad", "Concat"] or len(pad.outputs[0].uses()) != len(taps):
        return None
    if any(t is None or t.op_type != "Slice" or sole_user(t.outputs[0]) is not last for t in taps):
        return None
    first = transposed(pad.inputs[0], TO_ROWS)
    if first is None or sole_user(first.outputs[0]) is not pad or {t.inputs[0] for t in taps} != {pad.outputs[0]}:  # type: ignore[union-attr]
        return None
    return [first, pad, *taps, last]  # type: ignore[list-item]


def after(product: ir.Node) -> list[ir.Node] | None:
    """A sum with a bias, if there is one, and what `Window.to_image` put behind `product`; None as in `before`."""
    window = product.meta[CONVOLUTION].window
    kinds = ["Reshape", "Transpose", "Reshape", *["Slice"] * any(window.pads)] if window.transposed else []
    node, found = sole_user(product.outputs[-1]), []
    if node is not None and node.op_type == "Add":
        found.append(node)
        node = sole_user(node.outputs[0])
    for kind in [*kinds, "Transpose"]:
        if node is None or (node.domain, node.op_type) != ("", kind):
            return None
        found.append(node)
        node = sole_user(node.outputs[0])
    return found if transposed(found[-1].outputs[0], TO_IMAGE) is found[-1] else None


def transposed(value: ir.Value | None, perm: Sequence[int]) -> ir.Node | None:
    """The Transpose by `perm` that makes `value`, if one does."""
    node = None if value is None else value.producer()
    if node is None or (node.domain, node.op_type) != ("", "Transpose"):
        return None
    return node if tuple(node.attributes.get_ints("perm", [])) == tuple(perm) else None
