"""Elementwise activations in a graph: which nodes make one up, and what it computes.

Exporters write some activations out in many ways, GELU by erf for one:

    Div(x, sqrt 2) or Mul(x, 1 / sqrt 2)  ->  Erf  ->  Add 1  ->  Mul by x and by 0.5, in any order

So nodes are not compared with a list of forms. A region that grows from a value by elementwise arithmetic with
scalar constants, until one value is all that leaves it, is a function of one number: it is evaluated in float64 and
compared with the functions that we know. They and all compositions that can match are analytic: two of them that
agree at all points of `_POINTS` but are not the same do not arise from a dozen nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import scipy.special

from sparsify.graph import scalar, sole_user

Array = npt.NDArray[np.float64]

_MOST_NODES = 12  # GELU by tanh takes 9 or 10
_POINTS = np.concatenate([np.linspace(-12, 12, 193), [-100.0, -1e-3, 1e-3, 100.0]])
# Exporters round constants to float32 once or twice: 2^-22 of each. z f'(z) of what they scale is at most 0.5, there
# are at most four of them: 2 * 2^-22 of max(|x|, 1). 1.4142 for sqrt 2 is off by 40 * 2^-22 and another function.
_TOLERANCE = 2.0**-21


@dataclass(frozen=True)
class Activation:
    """An elementwise function of one value.

    Attributes:
        name: `Relu`, `Gelu` (by erf), `GeluTanh`, `Silu`, ...
        nodes: the nodes that compute it, in order; the last gives the result. Nothing else reads what they read.
        function: the same on an array.
    """

    name: str
    nodes: tuple[ir.Node, ...]
    function: Callable[[Array], Array]

    @property
    def output(self) -> ir.Value:
        return self.nodes[-1].outputs[0]


def gelu(x: Array) -> Array:
    """0.5 x (1 + erf(x / sqrt 2))."""
    return np.asarray(x * scipy.special.ndtr(x))


def gelu_tanh(x: Array) -> Array:
    """0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), GELU's approximation."""
    return np.asarray(x * scipy.special.expit((8 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))


def silu(x: Array) -> Array:
    """X sigmoid(x), also called Swish."""
    return np.asarray(x * scipy.special.expit(x))


_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "Abs": np.abs,
    "Erf": scipy.special.erf,
    "Gelu": gelu,
    "Identity": np.array,
    "Neg": np.negative,
    "Relu": lambda x: np.maximum(x, 0),
    "Sigmoid": scipy.special.expit,
    "Softplus": lambda x: np.logaddexp(x, 0),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Tanh": np.tanh,
}
_COMPOSED: dict[str, Callable[[Array], Array]] = {"Gelu": gelu, "GeluTanh": gelu_tanh, "Silu": silu}
_ARITHMETIC: dict[str, Callable[..., Array]] = {
    "Add": np.add,
    "Div": np.divide,
    "Erf": scipy.special.erf,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Pow": np.power,
    "Sigmoid": scipy.special.expit,
    "Sub": np.subtract,
    "Tanh": np.tanh,
}


def activation(x: ir.Value) -> Activation | None:
    """The activation that alone reads `x`; None if something else does."""
    if x.is_graph_output():
        return None
    if (node := sole_user(x)) is not None:
        if (name := _plain(node)) is not None:
            return Activation(name, (node,), {**_FUNCTIONS, **_COMPOSED}[name])
        if node.op_type == "LeakyRelu" and node.domain == "":
            slope = float(node.attributes.get_float("alpha", 0.01))
            return Activation("LeakyRelu", (node,), lambda x: np.where(x < 0, slope * x, x))
    for nodes, y in _regions(x):
        for name, function in _COMPOSED.items():
            if np.all(np.abs(y - function(_POINTS)) <= _TOLERANCE * np.maximum(np.abs(_POINTS), 1)):
                return Activation(name, nodes, function)
    return None


def _plain(node: ir.Node) -> str | None:
    """The name of the activation that `node` computes by itself."""
    kind = node.domain, node.op_type
    if kind in (("", "Gelu"), ("com.microsoft", "Gelu")):
        return {"none": "Gelu", "tanh": "GeluTanh"}.get(node.attributes.get_string("approximate", "none"))
    if kind == ("com.microsoft", "FastGelu"):
        return "GeluTanh" if len(node.inputs) == 1 or node.inputs[1] is None else None
    if kind == ("", "Swish"):
        return "Silu" if node.attributes.get_float("alpha", 1.0) == 1 else None
    return node.op_type if node.domain == "" and node.op_type in _FUNCTIONS else None


def _regions(x: ir.Value) -> Iterator[tuple[tuple[ir.Node, ...], Array]]:
    """The regions of arithmetic over `x` and scalars that one value leaves, smallest first: nodes, and f(_POINTS)."""
    graph = next(iter(x.uses())).node.graph if x.uses() else None
    known: dict[ir.Value, Array] = {x: _POINTS}
    nodes: list[ir.Node] = []
    while len(nodes) <= _MOST_NODES:
        open_values = [v for v in known if v.is_graph_output() or any(u.node not in nodes for u in v.uses())]
        if nodes and open_values == [nodes[-1].outputs[0]]:
            yield tuple(nodes), known[nodes[-1].outputs[0]]
        for node in (use.node for v in open_values for use in v.uses()):
            if node not in nodes and node.graph is graph and (y := _value(node, known)) is not None:
                nodes.append(node)
                known[node.outputs[0]] = y
                break
        else:
            return


def _value(node: ir.Node, known: dict[ir.Value, Array]) -> Array | None:
    """What `node` gives at `_POINTS`; None if it is no arithmetic or reads something that is not known."""
    if node.domain != "" or node.op_type not in _ARITHMETIC or len(node.outputs) != 1:
        return None
    operands: list[Array] = []
    for value in node.inputs:
        number = None if value is None or value in known else _scalar(value, known)
        if value is not None and value in known:
            operands.append(known[value])
        elif number is not None:
            operands.append(np.float64(number) + np.zeros_like(_POINTS))
        else:
            return None
    with np.errstate(all="ignore"):
        return np.asarray(_ARITHMETIC[node.op_type](*operands))


def _scalar(value: ir.Value, known: dict[ir.Value, Array]) -> float | None:
    """The number in a constant that adds no dimension to any value."""
    first = next(iter(known))
    rank = 1 if first.shape is None else len(first.shape)
    shape = value.shape if value.const_value is None else value.const_value.shape
    return scalar(value) if shape is None or len(shape) <= rank else None
