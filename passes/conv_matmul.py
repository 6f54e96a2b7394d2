"""Convolutions of one point are linear layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from sparsify.graph import (
    FloatArray,
    add_initializer,
    constant,
    fresh_name,
    graph_of,
    names,
    node_name,
    substitute,
)
from sparsify.pointwise import KERNEL, POINTS, TO_IMAGE, TO_ROWS, followers
from sparsify.rewrite import Change, Event, Pass, Refusal
from sparsify.shapes import numbers


@dataclass(frozen=True)
class ConvMatMul(Pass):
    """Writes convolutions of 1x1 as products between transpositions, so that passes for linear layers see them.

    What:
        Conv becomes Transpose (channels last), MatMul, Add where it has a bias, and Transpose back. `settle-layout`
        makes a Conv again of those that no pass took. What follows a Conv, a larger one too, and is a number a channel
        (Add, Sub, Mul, BatchNormalization) goes into kernel and bias: where transpositions have moved, a runtime may
        no longer see that it could.
    When it fires:
        A Conv of the main graph with a constant float32 kernel [N, K, 1, 1], strides of 1, no padding, one group and
        a constant bias or none.
    When it refuses:
        Another Conv of 1x1. Larger kernels are no linear layers and not spoken of.
    Mathematics:
        Y[b, :, i, j] = W X[b, :, i, j] + c at every point: rows of channels, times W transposed.
    Cost:
        Two transpositions; what is measured of the layer has them in it.
    Drift:
        The order of summation.
    Source:
        Lin et al., "Network In Network", 2014, section 3.
    """

    name: ClassVar[str] = "conv-matmul"

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        taken, found = names(model), [n for n in model.graph if (n.domain, n.op_type) == ("", "Conv")]
        known = numbers(model) if found else {}
        for node in found:
            kernel = constant(node.inputs[1])
            if kernel is None or kernel.ndim != 4:
                continue
            before, (node, kernel) = node, _absorb(node, kernel, taken)
            if node is not before:
                yield Change("", f"`{node_name(node)}` computes what followed it")
            if kernel.shape[2:] != (1, 1):
                continue
            if reason := _obstacle(node, kernel):
                yield Refusal(node_name(node), reason)
                continue
            _, _, height, width = known.get(str(node.inputs[0].name), (None,) * 4)  # type: ignore[union-attr]
            if height and width:
                node.meta[POINTS] = height * width
            _replace(node, kernel[:, :, 0, 0].T, taken)
            yield Change(node_name(node), "a product between transpositions")


def _obstacle(node: ir.Node, kernel: FloatArray) -> str:
    if kernel.dtype != np.float32:
        return f"the kernel is {kernel.dtype}"
    if node.attributes.get_int("group", 1) != 1:
        return "the convolution has groups"
    if any(step != 1 for step in node.attributes.get_ints("strides", [1])):
        return "the convolution leaves points out"
    if any(node.attributes.get_ints("pads", [0])):
        return "the convolution adds points around"
    if _bias(node) is not None and constant(_bias(node)) is None:
        return "the bias is no constant"
    return ""


def _bias(node: ir.Node) -> ir.Value | None:
    return node.inputs[2] if len(node.inputs) > 2 else None


def _absorb(node: ir.Node, kernel: FloatArray, taken: set[str]) -> tuple[ir.Node, FloatArray]:
    """A convolution that computes what follows `node` as well, and its kernel; those given where nothing does."""
    bias, own = _bias(node), constant(_bias(node))
    if kernel.dtype != np.float32 or (bias is not None and own is None):
        return node, kernel
    if (more := followers(node, len(kernel))) is None:
        return node, kernel
    graph, name, weight = graph_of(node), node_name(node), node.inputs[1]
    total = more.shift if own is None else more.shift + more.scale * own
    bias = add_initializer(graph, total.astype(np.float32), f"{name}/bias", taken)
    if np.any(more.scale != 1):
        kernel = (kernel * more.scale[:, None, None, None]).astype(np.float32)
        weight = add_initializer(graph, kernel, f"{node.inputs[1].name}/scaled", taken)  # type: ignore[union-attr]
    attributes = list(node.attributes.values())
    conv = ir.Node("", "Conv", [node.inputs[0], weight, bias], attributes, name=name)
    conv.meta.update(node.meta)
    conv.metadata_props.update(node.metadata_props)
    new = [conv]
    if more.last:
        new.append(ir.node("Transpose", [conv.outputs[0]], {"perm": list(TO_ROWS)}, name=f"{name}/last"))
    _name(new, more.nodes[-1].outputs[0], taken)
    substitute([node, *more.nodes], new)
    return conv, kernel


def _replace(node: ir.Node, weight: FloatArray, taken: set[str]) -> None:
    name, bias = node_name(node), _bias(node)
    kernel = str(node.inputs[1].name) if node.inputs[1] is not None else name
    matrix = add_initializer(graph_of(node), weight, f"{kernel}/matrix", taken)
    rows = ir.node("Transpose", [node.inputs[0]], {"perm": list(TO_ROWS)}, name=f"{name}/rows")
    product = ir.node("MatMul", [rows.outputs[0], matrix], name=name)
    product.meta.update({**node.meta, KERNEL: kernel})
    product.metadata_props.update(node.metadata_props)
    new = [rows, product]
    if bias is not None:
        new.append(ir.node("Add", [product.outputs[0], bias], name=f"{name}/bias"))
    new.append(ir.node("Transpose", [new[-1].outputs[0]], {"perm": list(TO_IMAGE)}, name=f"{name}/image"))
    _name(new, node.outputs[0], taken)
    substitute([node], new)


def _name(new: list[ir.Node], output: ir.Value, taken: set[str]) -> None:
    """Name the values between `new` after the one that they make."""
    for made in new[:-1]:
        made.outputs[0].name = fresh_name(taken, f"{output.name}/{made.op_type}")
        made.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
