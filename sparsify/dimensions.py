"""Dimensions that an input must have are constants: what a model asks of shapes then need not be computed in every run.

Exporters trace `Shape -> Gather` chains for images of any size, and declare inputs of one size. A runtime refuses other
feeds, so all that follows from declared numbers is known. What a model says of its own values, which is often that of
the one batch that its exporter has seen, is not believed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify.graph import add_initializer, constant, names
from sparsify.shapes import numbers

Dimensions = Sequence[int | None]


class FoldDimensions(ir.passes.InPlacePass):
    """Replaces Shape, and Gather and Slice of a Shape, by constants where all of their dimensions are known."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        known, taken, folded = numbers(model), names(model), 0
        for node in [n for n in model.graph if n.op_type == "Shape" and n.domain == ""]:
            if node.inputs[0] is None or (found := known.get(str(node.inputs[0].name))) is None:
                continue
            dims = found[node.attributes.get_int("start", 0) : node.attributes.get_int("end", len(found))]
            for reader in [node, *(user for user, _ in node.outputs[0].uses())]:
                folded += _fold(model.graph, reader, dims, taken)
        return ir.passes.PassResult(model, modified=folded > 0)


def _fold(graph: ir.Graph, node: ir.Node, dims: Dimensions, taken: set[str]) -> bool:
    """Let a constant stand for what `node` makes of `dims`, if that is known and no output of the model."""
    value = node.outputs[0] if node.outputs else None
    if value is None or value.is_graph_output() or not value.uses() or (picked := _picked(node, dims)) is None:
        return False
    array = np.array(picked, np.int64)
    ir.convenience.replace_all_uses_with(value, add_initializer(graph, array, str(value.name), taken))
    return True


def _picked(node: ir.Node, dims: Dimensions) -> npt.NDArray[np.int64] | int | None:
    """What `node`, a Shape or a reader of one, gives; None where that is not known."""
    places = np.arange(len(dims))
    if node.op_type == "Gather" and node.domain == "":
        index = constant(node.inputs[1])
        if index is None or np.any((index < -len(dims)) | (index >= len(dims))):
            return None
        places = places[index]
    elif node.op_type == "Slice" and node.domain == "" and len(node.inputs) > 1:
        parts = [constant(value) for value in node.inputs[1:] if value is not None]
        if len(parts) < len(node.inputs) - 1 or any(p is None or p.size != 1 for p in parts):
            return None
        start, stop, _, step = [int(p.reshape(())) for p in parts if p is not None] + [0, 1][len(parts) - 2 :]
        if step < 1:  # clipped to other ends than Python does
            return None
        places = places[start:stop:step]
    elif node.op_type != "Shape":
        return None
    found = [dims[int(place)] for place in places.ravel()]
    return None if None in found else np.array(found, np.int64).reshape(places.shape)
