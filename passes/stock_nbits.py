"""Weights of 4 or 8 bits with onnxruntime's own operator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify.errors import InputError, UsageError
from sparsify.graph import Linear, add_initializer, as_it_is, graph_of, names, substitute
from sparsify.lowering import activations_of, bias_nodes, narrowed
from sparsify.rewrite import Change, Event, Pass, Refusal, chosen, layers
from sparsify.solvers.blockwise import BITS, Blockwise, quantize

DOMAIN = "com.microsoft"
BLOCKS = (16, 32, 64, 128, 256)
ACCURACY = (0, 4)

_Stored = tuple[tuple[ir.Value, ir.Value, ir.Value], int]  # the operator's inputs, and their bytes


@dataclass(frozen=True)
class StockNBits(Pass):
    """Replaces linear layers by onnxruntime's MatMulNBits: weights of 4 or 8 bits, a scale for each block of inputs.

    What:
        X -> MatMulNBits(X, q, scale, zero) (-> Add C), of the domain com.microsoft. Layers that share a weight share
        its copy.
    When it fires:
        Every MatMul and Gemm with a constant matrix of finite weights.
    When it refuses:
        The layer has no such weight, it holds a NaN or an infinity, or the installed onnxruntime cannot do it.
    Mathematics:
        alpha w ~ (q - z) s for blocks of `block` inputs (see `sparsify.solvers.blockwise`). With `accuracy=4`
        onnxruntime also rounds each block of a row of X to int8; with 0 it multiplies in fp32.
    Cost:
        0.69 bytes a weight at 4 bits and 1.16 at 8, in blocks of 32. Made for few rows, where reading weights is what
        takes the time; with many it is slower than dense fp32: let a search decide.
    Drift:
        |error| <= sum_k |x_k| s, and with `accuracy=4` that of X in 127 steps to the largest of a block on top.
    Source:
        onnxruntime.quantization.matmul_nbits_quantizer; onnxruntime 1.17 for 4 bits, 1.22 for 8 with `accuracy=4`.
    """

    name: ClassVar[str] = "stock-nbits"

    bits: int = 4  # 4 or 8
    block: int = 32  # inputs that share a scale: 16, 32, 64, 128 or 256
    accuracy: int = 4  # 4: multiply in int8; 0: in fp32

    def __post_init__(self) -> None:
        for name, allowed in (("bits", BITS), ("block", BLOCKS), ("accuracy", ACCURACY)):
            if (value := getattr(self, name)) not in allowed:
                raise UsageError(
                    f"`{name}` is one of {', '.join(map(str, allowed))}, not {value}", where=f"pass `{self.name}`"
                )

    @property
    def format(self) -> str:
        """What a search calls it."""
        return f"{self.name}{self.bits}"

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        taken = names(model)
        stored: dict[tuple[object, ...], _Stored] = {}
        for layer in layers(model):
            if isinstance(layer, Refusal):
                yield layer
                continue
            layer = as_it_is(layer)
            facts: dict[str, Any] = {"shape": list(layer.shape), "bytes_before": layer.tensor.nbytes}
            if (choice := chosen(layer)) is not None and choice.format != self.format:
                yield Refusal(layer.name, f"the search chose `{choice}`", facts)
                continue
            if obstacle := _obstacle(self.bits, self.block, self.accuracy):
                yield Refusal(layer.name, obstacle, facts)
                continue
            matrix = layer.matrix() * np.float32(layer.alpha)
            if not np.isfinite(matrix).all():
                yield Refusal(layer.name, "the weight holds a NaN or an infinity", facts)
                continue
            graph = graph_of(layer.node)
            key = (graph, layer.source, layer.transposed, layer.alpha)
            if key not in stored:
                found = quantize(matrix, self.bits, self.block)
                stored[key] = _store(graph, found, layer.source.name or layer.name, taken)
            weight, size = stored[key]
            self._replace(layer, weight, taken)
            model.opset_imports.setdefault(DOMAIN, 1)
            facts |= {
                "format": self.format,
                "sparsity": 1 - np.count_nonzero(matrix) / matrix.size,
                "bytes_after": size,
            }
            saved = f"{layer.tensor.nbytes} to {size} bytes"
            yield Change(layer.name, f"now MatMulNBits of {self.bits} bits, {saved}", facts)

    def _replace(self, layer: Linear, weight: Sequence[ir.Value], taken: set[str]) -> None:
        """Put the operator in the place of the layer's node."""
        x, new = activations_of(layer, taken)
        attributes = _attributes(layer.shape, self.bits, self.block, self.accuracy)
        product = ir.node("MatMulNBits", [x, *weight], attributes, domain=DOMAIN, name=layer.name)
        product.meta.update(layer.node.meta)
        new += [product, *narrowed(layer, product.outputs[0], taken)]
        new += bias_nodes(layer, new[-1].outputs[0], taken)
        substitute([layer.node], new)


def _store(graph: ir.Graph, weight: Blockwise, stem: str, taken: set[str]) -> _Stored:
    arrays: dict[str, npt.NDArray[Any]] = {"quantized": weight.q, "scale": weight.scale, "zero_point": weight.zero}
    q, scale, zero = (add_initializer(graph, array, f"{stem}.{name}", taken) for name, array in arrays.items())
    return (q, scale, zero), weight.nbytes


def _attributes(shape: tuple[int, int], bits: int, block: int, accuracy: int) -> dict[str, int]:
    return {"K": shape[0], "N": shape[1], "bits": bits, "block_size": block, "accuracy_level": accuracy}


@cache
def _obstacle(bits: int, block: int, accuracy: int) -> str:
    """Why the installed onnxruntime cannot do it, found by having it run the smallest such layer; empty if it can."""
    import onnxruntime

    from sparsify import runtime  # only who tries needs onnxruntime

    x, y = (ir.val(name, ir.DataType.FLOAT, [1, size]) for name, size in (("x", block), ("y", 1)))
    found = quantize(np.ones((block, 1), np.float32), bits, block)
    arrays: dict[str, npt.NDArray[Any]] = {"q": found.q, "scale": found.scale, "zero": found.zero}
    weight = [
        ir.Value(name=n, const_value=ir.tensor(a, name=n), type=ir.TensorType(ir.DataType.from_numpy(a.dtype)))
        for n, a in arrays.items()
    ]
    attributes = _attributes((block, 1), bits, block, accuracy)
    node = ir.node("MatMulNBits", [x, *weight], attributes, outputs=[y], domain=DOMAIN)
    graph = ir.Graph([x], [y], nodes=[node], initializers=weight, opset_imports={"": 17, DOMAIN: 1}, name="probe")
    try:
        runtime.run(runtime.session(ir.Model(graph, ir_version=8), threads=1), {"x": np.ones((1, block), np.float32)})
    except InputError:
        return f"onnxruntime {onnxruntime.__version__} has no MatMulNBits of {bits} bits with accuracy={accuracy}"
    return ""
