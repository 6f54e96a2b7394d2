"""What the tests of passes share: run a model, and bound what rounding may do to it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from tests.onemodel import session
from tests.references import product_bound

EPS = float(np.finfo(np.float32).eps)


def run(model: ir.Model, **feed) -> list[np.ndarray]:
    """The outputs of `model` in a stock onnxruntime, after onnx's checker has accepted it."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return session(proto, native=False).run(None, feed)


def difference_bound(x: np.ndarray, w: np.ndarray, *added: np.ndarray) -> np.ndarray:
    """Bound on the difference of two fp32 evaluations of alpha x w + added..., in any order: both may be off."""
    return 2 * product_bound(x, w, *added, factors=1)


def sparse(rng: np.random.Generator, k: int, n: int, density: float = 0.3) -> np.ndarray:
    """W float32 [K, N] with that share of non-zeros."""
    return (rng.standard_normal((k, n)) * (rng.random((k, n)) < density)).astype(np.float32)


def set_constant(model: ir.Model, name: str, array: np.ndarray) -> None:
    """Give the initializer `name` of the graph or a subgraph other data."""
    for graph in model.graphs():
        if name in graph.initializers:
            value = graph.initializers[name]
            value.const_value = ir.tensor(array, name=name)
            value.shape = ir.Shape(array.shape)
            return
    raise KeyError(name)


def op_types(model: ir.Model) -> list[str]:
    """Operators of the graph and its subgraphs, in order."""
    return [node.op_type for node in model.graph.all_nodes()]
