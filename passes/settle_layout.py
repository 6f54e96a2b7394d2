"""What `conv-matmul` put between transpositions gets its layout for good."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from sparsify.activations import activation
from sparsify.convolutions import CONVOLUTION, POINTS, TO_IMAGE, TO_ROWS, Window, after, before, transposed, window_of
from sparsify.graph import add_initializer, constant, graph_of, names, node_name, substitute
from sparsify.rewrite import Change, Event, Pass, Refusal

_BACK = "no form of the product gains: it is a convolution again"


@dataclass(frozen=True)
class SettleLayout(Pass):
    """Makes convolutions again of products that no pass took, and drops transpositions that cancel.

    What:
        Transpose, MatMul, Add, Transpose becomes Conv, and what was a ConvTranspose one. Behind a product that became
        something else the way back to an image moves behind the activation that follows, so that this can become part
        of the operator; and a Transpose back that meets the next Transpose goes with it.
    When it fires:
        On products that `conv-matmul` made of convolutions.
    When it refuses:
        A product whose surroundings are no longer those that `conv-matmul` made.
    Mathematics:
        f(transpose(X)) = transpose(f(X)) for an elementwise f.
    Cost:
        Saves transpositions.
    Drift:
        None.
    Source:
        None.
    """

    name: ClassVar[str] = "settle-layout"

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        taken = names(model)
        made = [node for node in model.graph if window_of(node) is not None]
        if not made:
            return
        events = [_convolution(node, taken) for node in made if node.op_type == "MatMul"]
        yield from events
        if back := sum(event.reason == _BACK for event in events):
            yield Change("", f"{back} product{'s are convolutions' if back > 1 else ' is a convolution'} again")
        for node in made:
            if node.op_type == "MatMul":
                continue
            if (layout := after(node)) is not None and (moved := _behind_activation(layout)):
                yield Change(node_name(node), f"transposed behind {moved}")
        for node in [n for n in model.graph if n.outputs and transposed(n.outputs[0], TO_ROWS) is n]:
            image = transposed(node.inputs[0], TO_IMAGE)
            if image is None or node.outputs[0].is_graph_output():
                continue
            ir.convenience.replace_all_uses_with(node.outputs[0], image.inputs[0])  # type: ignore[arg-type]
            model.graph.remove(node, safe=True)
            if not image.outputs[0].uses() and not image.outputs[0].is_graph_output():
                model.graph.remove(image, safe=True)
            yield Change("", "two transpositions that met are gone")


def _convolution(product: ir.Node, taken: set[str]) -> Refusal:
    name, was = node_name(product), product.meta[CONVOLUTION]
    rows, image, weight = before(product), after(product), constant(product.inputs[1])
    added = [] if image is None or image[0].op_type != "Add" else [v for v in image[0].inputs if v is not None]
    bias = [_bias(value, was.window, f"{name}/bias", taken) for value in added if value is not product.outputs[0]]
    if rows is None or image is None or weight is None or None in bias:
        return Refusal(name, "what surrounds the product has changed: it cannot be a convolution again")
    kernel = add_initializer(graph_of(product), was.window.kernel(weight), was.kernel, taken)
    conv = ir.Node("", was.window.op_type, [rows[0].inputs[0], kernel, *bias], was.attributes, name=name)
    conv.meta.update({key: value for key, value in product.meta.items() if key not in (CONVOLUTION, POINTS)})
    conv.metadata_props.update(product.metadata_props)
    substitute([*rows, product, *image], [conv])
    return Refusal(name, _BACK)


def _bias(value: ir.Value, window: Window, stem: str, taken: set[str]) -> ir.Value | None:
    """The bias of a convolution, of the values that its product adds; None where they differ from point to point."""
    if not window.transposed:
        return value
    points = constant(value)
    if points is None or not isinstance(value.graph, ir.Graph):
        return None
    first = points[: len(points) // window.points]
    alike = np.array_equal(np.tile(first, window.points), points)
    return add_initializer(value.graph, first, stem, taken) if alike else None


def _behind_activation(layout: Sequence[ir.Node]) -> str:
    """Move what brings the product to an image behind the activation that alone reads it; its name, else empty."""
    moved = [node for node in layout if node.op_type != "Add"]
    graph, rows, image = graph_of(moved[-1]), moved[0].inputs[0], moved[-1].outputs[0]
    found = activation(image)
    if found is None or found.nodes[-1].graph is not graph:
        return ""
    end = found.output
    ir.convenience.replace_all_uses_with(image, rows)  # type: ignore[arg-type]
    graph.remove(moved)
    ir.convenience.replace_all_uses_with(end, image, replace_graph_outputs=True)
    moved[0].replace_input_with(0, end)
    graph.insert_after(found.nodes[-1], moved)
    image.name, end.name = end.name, image.name
    image.type, image.shape = end.type, end.shape
    for node in found.nodes:
        node.outputs[0].shape = None  # of the other layout now
    return found.name
