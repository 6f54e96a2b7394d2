"""Dynamic int8 with ONNX's own operators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from sparsify.graph import Linear, add_initializer, as_it_is, graph_of, names, substitute
from sparsify.lowering import activations_of, bias_nodes, integer_obstacle, named, narrowed
from sparsify.rewrite import Change, Event, Pass, Refusal, chosen, layers
from sparsify.solvers.quantize import LEVELS, quantize

_REDUCED = 63  # 2 * 255 * 63 < 2^15

_Key = tuple[object, ...]


@dataclass(frozen=True)
class StockInt8(Pass):
    """Replaces linear layers by onnxruntime's dynamic int8: standard operators, no functions, any runtime.

    What:
        X -> DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul by both scales (-> Add C).
        Layers that read the same X share its quantisation, and layers that share a weight its int8 copy.
        onnxruntime fuses the rest into DynamicQuantizeMatMul or MatMulIntegerToFloat when it loads the model.
    When it fires:
        Every MatMul and Gemm with a constant fp32 matrix, from opset 11 on.
    When it refuses:
        The layer has no such weight; it holds a NaN or an infinity; a column has so many non-zeros that an
        int32 sum could overflow.
    Mathematics:
        alpha W ~ q * scale, scale_n = max_k |alpha w_kn| / 127;  X ~ (p - z) * s, p in 0..255, one s and z for all
        of X;  Y = s * scale * ((p - z) q) + beta C.
    Cost:
        1 byte a weight. The time is that of onnxruntime's dense int8 kernels.
    Drift:
        |error| <= sum_k (|x_k| scale_n / 2 + |w_kn| s + scale_n s / 2); one outlier in X costs every row. CPUs
        without VNNI add pairs of products in 16 bits, which can saturate; `reduce_range` avoids that with
        weights of 7 bits.
    Source:
        onnxruntime.quantization.quantize_dynamic.
    """

    name: ClassVar[str] = "stock-int8"

    reduce_range: bool = False  # weights in -63..63, for CPUs without VNNI

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        taken = names(model)
        # Made once: by graph and activation, and by graph and weight. Keys hold what they name, so ids stay unique.
        quantized: dict[_Key, tuple[ir.Value, ir.Value, ir.Value]] = {}
        stored: dict[_Key, tuple[ir.Value, ir.Value]] = {}
        for layer in layers(model):
            if isinstance(layer, Refusal):
                yield layer
                continue
            layer = as_it_is(layer)
            facts: dict[str, Any] = {"shape": list(layer.shape), "bytes_before": layer.tensor.nbytes}
            if (choice := chosen(layer)) is not None and choice.format != self.name:
                yield Refusal(layer.name, f"the search chose `{choice}`", facts)
                continue
            matrix = layer.matrix() * np.float32(layer.alpha)
            if reason := integer_obstacle(matrix):
                yield Refusal(layer.name, reason, facts)
                continue
            graph = graph_of(layer.node)
            key = (graph, layer.source, layer.transposed, layer.alpha)
            if key not in stored:
                stem = layer.source.name or layer.name
                q, scale = quantize(matrix, _REDUCED if self.reduce_range else LEVELS)
                stored[key] = (
                    add_initializer(graph, q, f"{stem}.quantized", taken),
                    add_initializer(graph, scale, f"{stem}.scale", taken),
                )
            _replace(layer, stored[key], quantized, taken)
            facts |= {
                "format": "stock-int8",
                "sparsity": 1 - np.count_nonzero(matrix) / matrix.size,
                "bytes_after": matrix.size + 4 * layer.shape[1],
            }
            yield Change(layer.name, "now dynamic int8 with standard operators", facts)


def _replace(
    layer: Linear,
    weight: tuple[ir.Value, ir.Value],
    quantized: dict[_Key, tuple[ir.Value, ir.Value, ir.Value]],
    taken: set[str],
) -> None:
    """Put the integer product in the place of the layer's node."""
    name, out = layer.name, layer.output.name
    new: list[ir.Node] = []
    key = (graph_of(layer.node), layer.x, layer.transposed_x)
    if key not in quantized:
        x, new = activations_of(layer, taken)
        node = ir.node("DynamicQuantizeLinear", [x], num_outputs=3, name=f"{name}/quantize")
        p, s, z = node.outputs
        named(p, f"{x.name}/quantized", taken, ir.DataType.UINT8)
        named(s, f"{x.name}/scale", taken, ir.DataType.FLOAT)
        named(z, f"{x.name}/zero_point", taken, ir.DataType.UINT8)
        quantized[key] = p, s, z
        new.append(node)
    p, s, z = quantized[key]
    product = ir.node("MatMulInteger", [p, weight[0], z], name=f"{name}/product")
    total = named(product, f"{out}/total", taken, ir.DataType.INT32)
    cast = ir.node("Cast", [total], {"to": ir.DataType.FLOAT}, name=f"{name}/cast")
    as_float = named(cast, f"{out}/as_float", taken, ir.DataType.FLOAT)
    scales = ir.node("Mul", [s, weight[1]], name=f"{name}/scales")
    both = named(scales, f"{out}/scales", taken, ir.DataType.FLOAT)
    scaled = ir.node("Mul", [as_float, both], name=name)
    scaled.meta.update(layer.node.meta)
    new += [product, cast, scales, scaled, *narrowed(layer, scaled.outputs[0], taken)]
    new += bias_nodes(layer, new[-1].outputs[0], taken)
    substitute([layer.node], new)
