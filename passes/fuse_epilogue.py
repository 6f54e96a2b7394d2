"""Fold what follows a sparse operator into it: a bias, then Relu or Gelu."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
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

_FUSABLE = {"Relu": ops.Activation.RELU, "Gelu": ops.Activation.GELU}


@dataclass(frozen=True)
class FuseEpilogue(Pass):
    """Makes the Add of a constant bias, and a Relu or Gelu, part of the sparse operator before them.

    What:
        SparseMatMul* -> Add -> Relu|Gelu becomes one operator with that bias and activation.
        Also com.microsoft's BiasGelu.
    When it fires:
        An operator of ours without activation is read only by an Add of a constant that is the same for every
        row, by an activation, or by one after the other. GELU is recognised in every form that computes it by
        erf; see `sparsify.activations`.
    When it refuses:
        Nothing of the kind follows; something else reads the value in between; that value is an output.
        Layers that are not sparse operators are not looked at: the pass that lowers them says why.
    Mathematics:
        f((X W + b) + c) = f(X W + (b + c))
    Cost:
        Saves a pass over Y [M, N] in memory for each node folded.
    Drift:
        Rounding of b + c, and none where b was zero; the kernel's Gelu is exact to a few ulp.
    Source:
        Operator fusion as in onnxruntime's MatMulAddFusion and BiasGeluFusion.
    """

    name: ClassVar[str] = "fuse-epilogue"

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        taken = names(model)
        for node in list(model.graph.all_nodes()):
            if (operator := ops.operator_of(node)) is not None:
                yield _fuse(model, node, operator, taken)


def _fuse(model: ir.Model, node: ir.Node, operator: ops.Operator, taken: set[str]) -> Change | Refusal:
    if operator.activation:
        return Refusal(node_name(node), f"it already has the activation {operator.activation}")
    bias = constant(node.inputs[-1])
    if bias is None:
        return Refusal(node_name(node), "its bias is not a constant")
    folded: list[ir.Node] = []
    parts: list[str] = []
    end = node.outputs[0]
    if (added := _added_bias(end, len(bias))) is not None:
        bias = bias + added[1]
        folded.append(added[0])
        parts.append("bias")
        end = added[0].outputs[0]
    if folded and folded[0].op_type == "BiasGelu":
        kind: ops.Activation | None = ops.Activation.GELU
        parts.append("Gelu")
    elif (found := activation(end)) is not None and (kind := _FUSABLE.get(found.name)) is not None:
        folded += found.nodes
        parts.append(found.name)
    else:
        kind = None
    if not folded:
        return Refusal(node_name(node), _obstacle(end))
    fused = replace(operator, activation=kind or operator.activation)
    inputs = list(node.inputs[:-1])
    if added is None:
        inputs.append(node.inputs[-1])
    else:
        stem = node.inputs[-1].name if node.inputs[-1] is not None else None
        inputs.append(add_initializer(graph_of(node), bias, stem or f"{node_name(node)}.bias", taken))
    new = ir.Node(ops.DOMAIN, fused.name, inputs, name=node_name(node))
    new.meta.update(node.meta)
    new.metadata_props.update(node.metadata_props)
    ops.add_operator(model, fused)
    substitute([node, *folded], [new])
    return Change(node_name(new), f"fused {' and '.join(parts)}", {"fused": parts})


def _added_bias(product: ir.Value, n: int) -> tuple[ir.Node, FloatArray] | None:
    """The Add (or BiasGelu) that alone reads `product` [..., N], and the constant it adds as float32 [N]."""
    node = sole_user(product)
    if node is None or (node.domain, node.op_type) not in (("", "Add"), ("com.microsoft", "BiasGelu")):
        return None
    left, right = node.inputs
    c = constant(right if left is product else left)
    # A constant of more dimensions than the product would add dimensions; a product has at least 2.
    if c is None or c.dtype != np.float32 or c.ndim > (rank(product) or 2) or c.size not in (1, n):
        return None
    if c.ndim and c.shape[-1] != c.size:
        return None
    return node, np.broadcast_to(c.reshape(-1), (n,)).astype(np.float32)


def _obstacle(product: ir.Value) -> str:
    if product.is_graph_output():
        return "its output is an output of the model"
    users = [use.node for use in product.uses()]
    if len(users) != 1:
        return f"{len(users)} nodes read its output"
    return f"followed by {users[0].op_type}, which is no constant bias, Relu or Gelu by erf"
