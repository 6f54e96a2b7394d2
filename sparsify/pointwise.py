"""Convolutions of one point between two layouts: images have channels first, the rows of a product have them last."""

from __future__ import annotations

import onnx_ir as ir

TO_ROWS, TO_IMAGE = (0, 2, 3, 1), (0, 3, 1, 2)  # permutations of [B, C, H, W] and back
KERNEL = "pointwise"  # key of the `meta` of a MatMul that was a Conv: its kernel's name; in memory only


def is_pointwise(node: ir.Node) -> bool:
    """Whether `node`, a product or what it became, was a convolution."""
    return KERNEL in node.meta


def transposed(value: ir.Value | None, perm: tuple[int, ...]) -> ir.Node | None:
    """The Transpose by `perm` that makes `value`, if one does."""
    node = None if value is None else value.producer()
    if node is None or (node.domain, node.op_type) != ("", "Transpose"):
        return None
    return node if tuple(node.attributes.get_ints("perm", [])) == perm else None
