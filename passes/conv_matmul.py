"""Convolutions of one point, and those that enlarge an image, are linear layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify import ops
from sparsify.convolutions import CONVOLUTION, POINT, POINTS, Convolution, Window
from sparsify.followers import absorb, bias_of, name_between
from sparsify.graph import FloatArray, add_initializer, constant, graph_of, names, node_name, opset, substitute
from sparsify.rewrite import Change, Event, Pass, Refusal
from sparsify.shapes import numbers

_KINDS = ("Conv", "ConvTranspose")
_MOST_TAPS = 4  # along an axis: the product reads its square of copies of the image


@dataclass(frozen=True)
class ConvMatMul(Pass):
    """Writes convolutions as products between changes of layout, so that passes for linear layers see them.

    What:
        Conv and ConvTranspose become a Transpose (channels last), MatMul, Add where they have a bias, and a Transpose
        back. Before the product of a ConvTranspose stand the points that each row reads beside each other; behind it
        its points go where they belong. `settle-layout` makes a convolution again of what no pass took. What follows a
        convolution, one of another kernel too, and is a number a channel (Add, Sub, Mul, BatchNormalization) goes into
        kernel and bias: where transpositions have moved, a runtime may no longer see that it could.
    When it fires:
        A Conv of the main graph with a constant float32 kernel [N, K, 1, 1], strides of 1, no padding, one group and
        a constant bias or none. A ConvTranspose with a constant float32 kernel of as many times its stride, 2 or more,
        along both axes, one group, and an image whose size the model tells.
    When it refuses:
        Another Conv of 1x1 or ConvTranspose. Larger kernels of a Conv are no linear layers and not spoken of.
    Mathematics:
        Y[b, :, i, j] = W X[b, :, i, j] + c at every point: rows of channels, times W transposed. For the other see
        `sparsify.convolutions`.
    Cost:
        Two transpositions; a ConvTranspose also copies its input T^2 times and its output once. What is measured of
        the layer has them in it.
    Drift:
        The order of summation.
    Source:
        Lin et al., "Network In Network", 2014, section 3; Shi et al., "Is the deconvolution layer the same as a
        convolutional layer?", 2016.
    """

    name: ClassVar[str] = "conv-matmul"

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        taken, found = names(model), [n for n in model.graph if n.domain == "" and n.op_type in _KINDS]
        known = numbers(model) if found else {}
        for node in found:
            kernel = constant(node.inputs[1]) if len(node.inputs) > 1 else None
            if kernel is None or kernel.ndim != 4 or (image := node.inputs[0]) is None:
                continue
            before, (node, kernel) = node, absorb(node, kernel, taken)
            if node is not before:
                yield Change("", f"`{node_name(node)}` computes what followed it")
            if node.op_type == "Conv" and kernel.shape[2:] != (1, 1):
                continue
            shape = known.get(str(image.name), ())
            size = shape[2:] if len(shape) == 4 else (None, None)
            window = _obstacle(node, kernel, opset(model)) or _window(node, kernel, size)
            if isinstance(window, str):
                yield Refusal(node_name(node), window)
                continue
            if None not in size:
                node.meta[POINTS] = prod(window.lines if window.transposed else size)
            _replace(node, window, kernel, taken)
            yield Change(node_name(node), "a product between transpositions")


def _obstacle(node: ir.Node, kernel: FloatArray, version: int) -> str:
    """Why no such convolution is a product, in a model of this opset; empty when it may be one."""
    if kernel.dtype != np.float32:
        return f"the kernel is {kernel.dtype}"
    if node.attributes.get_int("group", 1) != 1:
        return "the convolution has groups"
    if bias_of(node) is not None and constant(bias_of(node)) is None:
        return "the bias is no constant"
    # Pad and Slice read what they do from attributes there.
    return f"the model's opset is below {ops.MIN_OPSET}" if version < ops.MIN_OPSET else ""


def _window(node: ir.Node, kernel: FloatArray, size: Sequence[int | None]) -> Window | str:
    """The window of the product that a convolution of an image of `size` is, or why it is none."""
    if node.op_type == "ConvTranspose":
        return _enlarging(node, kernel, size)
    if any(step != 1 for step in node.attributes.get_ints("strides", [1])):
        return "the convolution leaves points out"
    return "the convolution adds points around" if any(node.attributes.get_ints("pads", [0])) else POINT


def _enlarging(node: ir.Node, kernel: FloatArray, size: Sequence[int | None]) -> Window | str:
    attributes, sides = node.attributes, kernel.shape[2:]
    stride, *others = attributes.get_ints("strides", [1, 1])
    pads = tuple(attributes.get_ints("pads", [0] * 4))
    if stride < 2 or any(step != stride for step in others):
        return "it does not enlarge the image alike along both axes"
    if sides != (sides[0], sides[0]) or sides[0] % stride:
        return "the sides of its kernel are not the same multiple of its stride"
    if sides[0] // stride > _MOST_TAPS:
        return f"a point of its result has more than {_MOST_TAPS} sources along an axis"
    if any(step != 1 for step in attributes.get_ints("dilations", [1])):
        return "the kernel has gaps"
    given = attributes.get_ints("output_padding", [0]), attributes.get_ints("output_shape", [])
    if any(given[0]) or given[1] or attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return "its padding follows from the size of its result"
    if not np.all(np.isfinite(kernel)):  # times the zeros around the image it would be a NaN
        return "its kernel holds a NaN or an infinity"
    height, width = size
    if not height or not width:
        return "the size of its image is not known"
    window = Window(sides[0] // stride, stride, height, width, pads)  # type: ignore[arg-type]
    ends = zip(window.lines, pads[:2], pads[2:], strict=True)
    kept = all(start >= 0 and end >= 0 and start + end < stride * lines for lines, start, end in ends)
    return window if kept else "its padding leaves nothing"


def _replace(node: ir.Node, window: Window, kernel: FloatArray, taken: set[str]) -> None:
    name, bias = node_name(node), bias_of(node)
    stem = str(node.inputs[1].name) if node.inputs[1] is not None else name
    graph, weight = graph_of(node), window.matrix(kernel)

    def initializer(what: str, array: npt.NDArray[Any]) -> ir.Value:
        return add_initializer(graph, array, f"{name}/{what}", taken)

    new = window.to_rows(node.inputs[0], name, initializer)  # type: ignore[arg-type]
    matrix = add_initializer(graph, weight, f"{stem}/matrix", taken)
    new.append(ir.node("MatMul", [new[-1].outputs[0], matrix], name=name))
    was = Convolution(stem, window, tuple(node.attributes.values()))
    new[-1].meta.update({**node.meta, CONVOLUTION: was})
    new[-1].metadata_props.update(node.metadata_props)
    if bias is not None:
        if window.transposed:  # it goes to each of the points that a row makes
            bias = initializer("bias", np.tile(constant(bias), window.points))  # type: ignore[arg-type]
        new.append(ir.node("Add", [new[-1].outputs[0], bias], name=f"{name}/bias"))
    new += window.to_image(new[-1].outputs[0], weight.shape[1] // window.points, name, initializer)
    name_between(new, node.outputs[0], taken)
    substitute([node], new)
