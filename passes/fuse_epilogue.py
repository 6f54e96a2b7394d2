"""Fold what follows a sparse operator into it: a bias, then an activation or the sum with a residual."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from sparsify import ops
from sparsify.activations import activation
from sparsify.graph import (
    FloatArray,
    add_initializer,
    constant,
    graph_of,
    names,
    node_name,
    rank,
    sole_user,
    substitute,
)
from sparsify.rewrite import Change, Event, Pass, Refusal
from sparsify.shapes import Shape, shapes

_FUSABLE = {a.value: a for a in ops.Activation if a}
_BIASED = {"BiasGelu": ops.Activation.GELU, "FastGelu": ops.Activation.GELU_TANH}  # of com.microsoft


@dataclass(frozen=True)
class FuseEpilogue(Pass):
    """Makes the Add of a constant bias, and an activation or the sum with a residual, part of a sparse operator.

    What:
        SparseMatMul* -> Add -> Relu|Gelu|GeluTanh|Silu|Sigmoid|Tanh becomes one operator with that bias and
        activation; SparseMatMul* -> Add -> Add of a residual one operator with that bias and residual.
        Also com.microsoft's BiasGelu and FastGelu.
    When it fires:
        An operator of ours without activation is read only by an Add of a constant that is the same for every
        row, by an activation or the sum with a residual, or by one after the other. Gelu, its approximation by tanh
        and Silu are recognised in every form; see `sparsify.activations`.
    When it refuses:
        Nothing of the kind follows; something else reads the value in between; that value is an output.
        A residual that may be broadcast: unless its shape is known to be that of the product; see
        `sparsify.shapes`. Layers that are not sparse operators are not looked at: the pass that lowers them says why.
    Mathematics:
        f((X W + b) + c) = f(X W + (b + c))
    Cost:
        Saves a pass over Y [M, N] in memory for each node folded.
    Drift:
        Rounding of b + c, and none where b was zero; the kernel's activations are exact to a few ulp.
    Source:
        Operator fusion as in onnxruntime's MatMulAddFusion, BiasGeluFusion and SkipLayerNormFusion.
    """

    name: ClassVar[str] = "fuse-epilogue"

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        taken = names(model)
        known = cache(lambda: shapes(model))  # what is folded keeps the names of what is left
        for node in list(model.graph.all_nodes()):
            if (operator := ops.operator_of(node)) is not None:
                yield from _fuse(model, node, operator, taken, known)


def _fuse(
    model: ir.Model, node: ir.Node, operator: ops.Operator, taken: set[str], known: Callable[[], dict[str, Shape]]
) -> Iterator[Change | Refusal]:
    if operator.activation or operator.residual:
        has = "a residual" if operator.residual else f"the activation {operator.activation}"
        yield Refusal(node_name(node), f"it already has {has}")
        return
    bias = constant(node.inputs[-1])
    if bias is None:
        yield Refusal(node_name(node), "its bias is not a constant")
        return
    folded: list[ir.Node] = []
    parts: list[str] = []
    end = node.outputs[0]
    if (added := _added_bias(end, len(bias))) is not None:
        bias = bias + added[1]
        folded.append(added[0])
        parts.append("bias")
        end = added[0].outputs[0]
    kind: ops.Activation | None = None
    residual: ir.Value | None = None
    obstacle = ""
    if folded and folded[0].op_type in _BIASED:
        kind = _BIASED[folded[0].op_type]
        parts.append(kind.value)
    elif (found := activation(end)) is not None and found.name in _FUSABLE and found.nodes[-1].graph is node.graph:
        kind = _FUSABLE[found.name]
        folded += found.nodes
        parts.append(found.name)
    elif (sum_ := _residual_sum(end)) is not None:
        residual = _other(sum_, end)
        obstacle = _difference(end, residual, known())
        if not obstacle:
            folded.append(sum_)
            parts.append("residual")
    if obstacle or not folded:
        yield Refusal(node_name(node), obstacle or _obstacle(end))
    if not folded:
        return
    fused = replace(operator, activation=kind or operator.activation, residual=residual is not None and not obstacle)
    inputs = list(node.inputs[:-1])
    if added is None:
        inputs.append(node.inputs[-1])
    else:
        stem = node.inputs[-1].name if node.inputs[-1] is not None else None
        inputs.append(add_initializer(graph_of(node), bias, stem or f"{node_name(node)}.bias", taken))
    if fused.residual:
        inputs.append(residual)
    new = ir.Node(ops.DOMAIN, fused.name, inputs, name=node_name(node))
    new.meta.update(node.meta)
    new.metadata_props.update(node.metadata_props)
    ops.add_operator(model, fused)
    substitute([node, *folded], [new])  # in the place of the last of them, where the residual is known
    yield Change(node_name(new), f"fused {' and '.join(parts)}", {"fused": parts})


def _added_bias(product: ir.Value, n: int) -> tuple[ir.Node, FloatArray] | None:
    """The Add (or BiasGelu, FastGelu) that alone reads `product` [..., N], and what it adds as float32 [N]."""
    node = _next(product)
    if node is None or len(node.inputs) != 2:
        return None
    if (node.domain, node.op_type) != ("", "Add") and (node.domain != "com.microsoft" or node.op_type not in _BIASED):
        return None
    c = constant(_other(node, product))
    # A constant of more dimensions than the product would add dimensions; a product has at least 2.
    if c is None or c.dtype != np.float32 or c.ndim > (rank(product) or 2) or c.size not in (1, n):
        return None
    if c.ndim and c.shape[-1] != c.size:
        return None
    return node, np.broadcast_to(c.reshape(-1), (n,)).astype(np.float32)


def _residual_sum(product: ir.Value) -> ir.Node | None:
    """The Add that alone reads `product`."""
    node = _next(product)
    return node if node is not None and (node.domain, node.op_type) == ("", "Add") else None


def _next(product: ir.Value) -> ir.Node | None:
    """The one node, in the same graph, that reads `product`."""
    node, producer = sole_user(product), product.producer()
    return node if node is not None and producer is not None and node.graph is producer.graph else None


def _other(node: ir.Node, operand: ir.Value) -> ir.Value | None:
    left, right = node.inputs
    return right if left is operand else left


def _difference(product: ir.Value, residual: ir.Value | None, known: dict[str, Shape]) -> str:
    """Why `residual` may not have the shape of `product`; empty if it has."""
    mine = known.get(product.name or "")
    other = None if residual is None else known.get(residual.name or "")
    if mine is not None and mine == other:
        return ""
    name = "" if residual is None else residual.name
    return (
        f"followed by Add of `{name}`, whose shape {_text(other)} is not known to be that of the product, {_text(mine)}"
    )


def _text(shape: Shape | None) -> str:
    if shape is None:
        return "[?]"
    return f"[{', '.join(str(d) if isinstance(d, int) else '|'.join(sorted(d)) for d in shape)}]"


def _obstacle(product: ir.Value) -> str:
    if product.is_graph_output():
        return "its output is an output of the model"
    users = [use.node for use in product.uses()]
    if len(users) != 1:
        return f"{len(users)} nodes read its output"
    return f"followed by {users[0].op_type}, which is no constant bias, activation or residual"
