"""Skip the inputs that are zero in the very sample at hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
import onnx_ir as ir

from sparsify import formats, ops, runtime
from sparsify.errors import UsageError
from sparsify.formats import Encoding
from sparsify.graph import FloatArray, Linear, sole_user
from sparsify.lowering import ZEROS, Encoded, Lowering, NotEncodable
from sparsify.pruning import FEEDS, Feed
from sparsify.rewrite import Change, Event, Refusal, layers
from sparsify.runtime.batches import each_batch
from sparsify.solvers.quantize import quantize

MAX_ROWS = 8  # kMostRows of kernels/rows-inl.h: so many rows of X share a pass over W
_FLOATS = {"fp32": np.dtype(np.float32), "bf16": np.dtype(ml_dtypes.bfloat16)}
_VALUES = (*_FLOATS, "int8")


@dataclass(frozen=True)
class DynamicSparse(Lowering):
    """Replaces layers fed by Relu by an operator that reads only those rows of W whose input is not 0.

    What:
        MatMul and Gemm with a constant weight become `ai.sparsify` SparseMatMulRows, SparseMatMulBf16Rows with
        values=bf16, or SparseMatMulInt8Rows with values=int8: integers, and a scale a column. Activations stay float.
        The function is a plain MatMul. With a `threshold` t above 0 the Relu before the layer becomes ThresholdedRelu:
        what is not above t becomes 0. That changes answers: it is asked for, and audited like pruning.
    When it fires:
        The layer reads what a Relu, or an operator of ours that ends with one, gives; it has at most 8 rows; and on
        the calibration data at least the share `min_zeros` of its inputs is 0 in all of them. With `min_speedup` above
        0 the operator was measured on this machine to be that many times faster than the dense fp32 layer, on inputs
        with as many zeros.
    When it refuses:
        Another node makes the layer's input, there is no calibration data, there are more rows or fewer zeros, the
        weight is no constant or not finite, something else reads the Relu whose threshold would rise, or the
        measurement says that it does not pay.
    Mathematics:
        Y = sum over k with x_k != 0 of x_k W_k, + bias: exact, for W is finite. x' = x where x > t, else 0.
    Cost:
        Time is that of reading (1 - zeros) K N weights. bf16 takes a half of the bytes of W, int8 a quarter.
    Drift:
        Rounding. bf16: W is off by at most 2^-8 of itself; int8: by at most 1/254 of the largest of its column. A
        threshold: |error| <= t sum_k |w_kn|; measure it.
    Source:
        Kurtz et al., "Inducing and Exploiting Activation Sparsity for Fast Inference on Deep Neural Networks", 2020.
    """

    name: ClassVar[str] = "dynamic-sparse"
    format: ClassVar[str] = "dynamic-sparse"
    wants_data: ClassVar[bool] = True

    rows: int = 1
    min_zeros: float = 0.6  # share of inputs that are 0 below which a layer is left alone
    values: str = "fp32"  # what W is kept in: fp32, bf16 or int8
    threshold: float = 0.0  # what a Relu gives up to this becomes 0

    def __post_init__(self) -> None:
        if self.values not in _VALUES or self.threshold < 0 or not 0 <= self.min_zeros <= 1:
            raise UsageError(
                f"values={self.values}, threshold={self.threshold:g}, min_zeros={self.min_zeros:g} make no sense",
                where="pass `dynamic-sparse`",
                hint="values is fp32, bf16 or int8, threshold not negative, min_zeros from 0 to 1",
            )

    def encode(self, weight: FloatArray) -> Encoded:
        if self.values == "int8" and np.isfinite(weight).all():
            integers, scale = quantize(weight)
            return Encoded(formats.encode(integers, Encoding.ROWS), scale)
        with np.errstate(over="ignore"):  # refused below
            values = weight.astype(_FLOATS.get(self.values, np.float32))
        if not np.isfinite(values).all():
            raise NotEncodable(f"the weight holds a NaN, an infinity or a number beyond the range of {self.values}")
        return Encoded(formats.encode(values, Encoding.ROWS))

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        able = [layer for layer in layers(model) if isinstance(layer, Linear) and not self._obstacle(layer)]
        if able and (feeds := model.meta.get(FEEDS)):
            self._watch(model, able, feeds)
        yield from super().rewrite(model)

    def _lower(self, scope: Any, layer: Linear) -> Change | Refusal:
        facts: dict[str, Any] = {"shape": list(layer.shape)}
        if obstacle := self._obstacle(layer):
            return Refusal(layer.name, obstacle, facts)
        if ZEROS not in layer.node.meta:
            return Refusal(layer.name, "no calibration data has shown how many of its inputs are 0", facts)
        rows, zeros = int(layer.node.meta["rows"]), float(layer.node.meta[ZEROS])
        facts |= {"rows": rows, ZEROS: zeros}
        if rows > MAX_ROWS:
            return Refusal(layer.name, f"it has {rows} rows; zeros are skipped for up to {MAX_ROWS}", facts)
        if zeros < self.min_zeros:
            reason = f"{zeros:.0%} of its inputs are 0 in all rows, less than the {self.min_zeros:.0%} asked for"
            return Refusal(layer.name, reason, facts)
        relu = layer.x.producer()
        outcome = super()._lower(scope, layer)
        if isinstance(outcome, Change) and self.threshold > 0 and relu is not None:
            relu.op_type = "ThresholdedRelu"
            relu.attributes["alpha"] = ir.AttrFloat32("alpha", self.threshold)
        return dataclasses.replace(outcome, facts={**outcome.facts, **facts})

    def _too_slow(self, facts: Mapping[str, Any]) -> str:
        return (
            f"{facts['rewritten_ms']:.3f} ms against {facts['dense_ms']:.3f} ms dense: {facts['speedup']:.2f}x, less "
            f"than the {self.min_speedup:g}x asked for"
        )

    def _obstacle(self, layer: Linear) -> str:
        """Why the layer's input has no zeros to skip; empty if it may have."""
        producer = layer.x.producer()
        operator = None if producer is None else ops.operator_of(producer)
        if producer is None or not (_is_relu(producer) or (operator and operator.activation is ops.Activation.RELU)):
            return "no Relu makes its input"
        if layer.transposed_x:
            return "its input is transposed first"
        if self.threshold > 0 and not _is_relu(producer):
            return f"a threshold needs a Relu of its own, and `{producer.op_type}` makes its input"
        if self.threshold > 0 and sole_user(layer.x) is None:
            return "something else reads the Relu whose threshold would rise"
        return ""

    def _watch(self, model: ir.Model, able: Sequence[Linear], feeds: Sequence[Feed]) -> None:
        """Note at each node how many rows it has, the most in any feed, and the share of inputs that all are 0.

        Rows that hold a NaN or an infinity say nothing of that share. Padding does count: the operator
        runs over it, too.
        """
        rows: dict[str, int] = {}
        zeros: dict[str, list[float]] = {}
        names = {str(layer.x.name) for layer in able}
        for batch in each_batch(model, feeds, names, partial(_seen, threshold=self.threshold)):
            for name, count, shares in batch:
                rows[name] = max(rows.get(name, 0), count)
                zeros.setdefault(name, []).extend(shares)
        for layer in able:
            if found := zeros.get(str(layer.x.name)):
                layer.node.meta.update({"rows": rows[str(layer.x.name)], ZEROS: float(np.mean(found))})


def _is_relu(node: ir.Node) -> bool:
    return node.domain == "" and node.op_type in ("Relu", "ThresholdedRelu")


def _seen(batch: Iterable[tuple[Feed, Feed]], threshold: float) -> list[tuple[str, int, list[float]]]:
    """For each feed and value of it: its name, how many rows it has, and the shares of inputs that `MAX_ROWS` lack."""
    found = []
    for _, by_name in batch:
        for name, value in by_name.items():
            read = np.abs(runtime.counted([value], {})[0]) > threshold
            tiles = (read[first : first + MAX_ROWS] for first in range(0, len(read), MAX_ROWS))
            found.append((name, math.prod(value.shape[:-1]), [1 - float(tile.any(axis=0).mean()) for tile in tiles]))
    return found
