"""Elementwise activations in a graph: which nodes make one up, and what it computes.

GELU by erf, 0.5 x (1 + erf(x / sqrt 2)), is written by exporters as

    Div(x, sqrt 2) or Mul(x, 1 / sqrt 2)  ->  Erf  ->  Add 1  ->  Mul by x and by 0.5, in any order

with operands of Add and Mul in either order, as ONNX's Gelu (opset 20, approximate="none") and as
com.microsoft's Gelu. Its tanh approximation is another function and does not match.
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

# Exporters round the factors to float32 once or twice: 2 ulp of 1 are 2 * 2^-23.
_RELATIVE = 2.0**-22


@dataclass(frozen=True)
class Activation:
    """An elementwise function of one value.

    Attributes:
        name: `Relu`, `Gelu`, ...
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


def activation(x: ir.Value) -> Activation | None:
    """The activation that alone reads `x`; None if something else does."""
    if (node := sole_user(x)) is None:
        found = _erf_gelu(x)
        return None if found is None else Activation("Gelu", found, gelu)
    if _plain(node):
        return Activation(node.op_type, (node,), _FUNCTIONS[node.op_type])
    if node.op_type == "LeakyRelu" and node.domain == "":
        slope = float(node.attributes.get_float("alpha", 0.01))
        return Activation("LeakyRelu", (node,), lambda x: np.where(x < 0, slope * x, x))
    return None


def _plain(node: ir.Node) -> bool:
    """Whether `node` computes its entry of `_FUNCTIONS`."""
    if node.op_type == "Gelu":
        exact = node.attributes.get_string("approximate", "none") == "none"
        return exact and node.domain in ("", "com.microsoft")
    return node.domain == "" and node.op_type in _FUNCTIONS


def _erf_gelu(x: ir.Value) -> tuple[ir.Node, ...] | None:
    """The nodes of a GELU by erf over `x`, which read all of its uses."""
    users = [use.node for use in x.uses()]
    if x.is_graph_output() or len(users) != 2:
        return None
    for first, second in (users, reversed(users)):
        chain = [first, *_line(first, 2)]
        if len(chain) != 3 or chain[1].op_type != "Erf" or not _scaled_by(first, x, 0.5**0.5):
            continue
        if chain[2].op_type != "Add" or not _is(_other(chain[2], chain[1].outputs[0]), 1.0):
            continue
        if (product := _product(x, second, chain[2])) is not None:
            return (*chain, *product)
    return None


def _product(x: ir.Value, user: ir.Node, add: ir.Node) -> tuple[ir.Node, ...] | None:
    """The nodes that multiply `x`, read by `user`, the output of `add`, and 0.5."""
    last = _line(add, 1)
    if not last or last[0].op_type != "Mul":
        return None
    u, first = add.outputs[0], last[0]
    if _other(first, u) is x:  # (x * u) * 0.5
        then = _line(first, 1)
        return (first, then[0]) if then and _scaled_by(then[0], first.outputs[0], 0.5) else None
    if _scaled_by(first, u, 0.5):  # x * (u * 0.5)
        return (first, user) if user.op_type == "Mul" and _line(first, 1) == [user] else None
    if _scaled_by(user, x, 0.5) and _line(user, 1) == [first]:  # (x * 0.5) * u
        return (user, first)
    return None


def _line(node: ir.Node, count: int) -> list[ir.Node]:
    """Up to `count` nodes after `node`, each the sole user of the one before."""

    def walk(at: ir.Node | None) -> Iterator[ir.Node]:
        while at is not None and len(at.outputs) == 1 and (at := sole_user(at.outputs[0])) is not None:
            yield at

    return [n for n, _ in zip(walk(node), range(count), strict=False)]


def _scaled_by(node: ir.Node, x: ir.Value, factor: float) -> bool:
    """Whether `node` multiplies `x` by `factor`, or divides it by 1 / `factor`."""
    if node.domain != "":
        return False
    if node.op_type == "Div":
        return node.inputs[0] is x and _is(node.inputs[1], 1 / factor)
    return node.op_type == "Mul" and _is(_other(node, x), factor)


def _other(node: ir.Node, operand: ir.Value) -> ir.Value | None:
    """The operand of a node of two that is not `operand`; None if it has no such operand."""
    first, second = node.inputs
    return second if first is operand else first if second is operand else None


def _is(value: ir.Value | None, number: float) -> bool:
    found = scalar(value)
    return found is not None and abs(found - number) <= _RELATIVE * abs(number)
