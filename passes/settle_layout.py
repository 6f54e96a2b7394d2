"""What `conv-matmul` put between transpositions gets its layout for good."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from sparsify.activations import activation
from sparsify.graph import add_initializer, constant, graph_of, names, node_name, sole_user, substitute
from sparsify.pointwise import KERNEL, POINTS, TO_IMAGE, TO_ROWS, is_pointwise, transposed
from sparsify.rewrite import Change, Event, Pass, Refusal

_BACK = "no form of the product gains: it is a convolution again"


@dataclass(frozen=True)
class SettleLayout(Pass):
    """Makes convolutions again of products that no pass took, and drops transpositions that cancel.

    What:
        Transpose, MatMul, Add, Transpose becomes Conv. Behind a product that became something else a Transpose moves
        behind the activation that follows, so that this can become part of the operator; and a Transpose back that
        meets the next Transpose goes with it.
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
        made = [node for node in model.graph if is_pointwise(node)]
        if not made:
            return
        events = [_convolution(node, taken) for node in made if node.op_type == "MatMul"]
        yield from events
        if back := sum(event.reason == _BACK for event in events):
            yield Change("", f"{back} product{'s are convolutions' if back > 1 else ' is a convolution'} again")
        for node in made:
            if node.op_type == "MatMul":
                continue
            if (image := _image(node)) is not None and (moved := _behind_activation(image)):
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


def _image(product: ir.Node) -> ir.Node | None:
    """The Transpose back that alone reads a product, or its sum with a bias."""
    node = sole_user(product.outputs[-1])
    if node is not None and node.op_type == "Add":
        node = sole_user(node.outputs[0])
    return None if node is None else transposed(node.outputs[0], TO_IMAGE)


def _convolution(product: ir.Node, taken: set[str]) -> Refusal:
    name = node_name(product)
    rows, image = transposed(product.inputs[0], TO_ROWS), _image(product)
    weight = constant(product.inputs[1])
    if rows is None or image is None or weight is None or sole_user(rows.outputs[0]) is not product:
        return Refusal(name, "what surrounds the product has changed: it cannot be a convolution again")
    old, bias = [rows, product, image], []
    if (add := image.inputs[0].producer()) is not product:  # type: ignore[union-attr]
        assert add is not None
        old.insert(2, add)
        bias = [value for value in add.inputs if value is not product.outputs[0]]
    kernel = add_initializer(graph_of(product), weight.T[:, :, None, None], product.meta[KERNEL], taken)
    conv = ir.node("Conv", [rows.inputs[0], kernel, *bias], {"kernel_shape": [1, 1]}, name=name)
    conv.meta.update({key: value for key, value in product.meta.items() if key not in (KERNEL, POINTS)})
    conv.metadata_props.update(product.metadata_props)
    substitute(old, [conv])
    return Refusal(name, _BACK)


def _behind_activation(image: ir.Node) -> str:
    """Move the Transpose behind the activation that alone reads it; its name, empty if there is none."""
    found = activation(image.outputs[0])
    if found is None or found.nodes[-1].graph is not image.graph:
        return ""
    graph, before, end = graph_of(image), image.inputs[0], found.output
    after = ir.node("Transpose", [end], {"perm": list(TO_IMAGE)}, name=image.name)
    after.outputs[0].name, image_name = end.name, image.outputs[0].name
    after.outputs[0].type, after.outputs[0].shape = end.type, end.shape
    ir.convenience.replace_all_uses_with(image.outputs[0], before)  # type: ignore[arg-type]
    graph.insert_after(found.nodes[-1], after)
    ir.convenience.replace_all_uses_with(end, after.outputs[0], replace_graph_outputs=True)
    after.replace_input_with(0, end)
    for node in found.nodes:
        node.outputs[0].shape = None  # of the other layout now
    end.name = image_name
    graph.remove(image, safe=True)
    return found.name
