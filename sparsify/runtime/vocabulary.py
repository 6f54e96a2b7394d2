"""How many entries the embeddings have that an input looks up: a number from there on is outside of them."""

from __future__ import annotations

import onnx_ir as ir

_PASSES_ON = {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Expand", "Slice"}
_STORES = {"Cast", "Identity", "DequantizeLinear"}  # what may stand between a table and who reads it
# onnxruntime's fused embedding: which of its inputs is the table that another of its inputs looks up.
_FUSED = {0: 2, 1: 4, 8: 3}


def vocabulary(value: ir.Value) -> int | None:
    """The entries of the smallest embedding that `value` indexes, unchanged but in shape and type; None without any."""
    sizes: list[int] = []
    pending, seen = [value], {value}
    while pending:
        for use in pending.pop().uses():
            node, index = use.node, use.idx
            table = _table(node, index)
            if table is not None and (size := _size(node, table)) is not None:
                sizes.append(size)
            if node.op_type in _PASSES_ON and index == 0:
                pending += [made for made in node.outputs if made not in seen]
                seen.update(node.outputs)
    return min(sizes, default=None)


def _table(node: ir.Node, index: int) -> ir.Value | None:
    """What `node` looks up by its input number `index`."""
    if node.op_type in ("Gather", "GatherBlockQuantized") and index == 1:
        return node.inputs[0]
    if node.op_type == "EmbedLayerNormalization" and index in _FUSED and len(node.inputs) > _FUSED[index]:
        return node.inputs[_FUSED[index]]
    return None


def _size(node: ir.Node, table: ir.Value) -> int | None:
    """Entries of a table that is stored in the model."""
    while (maker := table.producer()) is not None and maker.op_type in _STORES and maker.inputs[0] is not None:
        table = maker.inputs[0]
    stored = ir.convenience.get_const_tensor(table)
    if stored is None:
        return None
    axis = node.attributes.get_int("axis", 0) if node.op_type == "Gather" else 0
    dims = tuple(stored.shape.numpy())
    return int(dims[axis]) if dims else None
