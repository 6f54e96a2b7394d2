"""Look, and change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from sparsify import storage
from sparsify.graph import Linear
from sparsify.patterns import block_counts, tightest_of
from sparsify.rewrite import Event, Finding, Pass, Refusal, layers, read_ahead


@dataclass(frozen=True)
class Detect(Pass):
    """Finds the linear layers of a model, and how sparse they already are.

    What:
        One finding for each linear layer, with shape [K, N], sparsity, the tightest pattern N:`block` that its
        zeros satisfy, and bytes.
    When it fires:
        Every MatMul and Gemm with a constant fp32 matrix. The model is never modified.
    When it refuses:
        Every other MatMul and Gemm, with the reason why no pass can rewrite it.
    Mathematics:
        sparsity = 1 - nnz / (K N).
    Cost:
        Reads each weight once.
    Drift:
        None.
    Source:
        None.
    """

    name: ClassVar[str] = "detect"

    block: int = 64  # M of the N:M pattern looked for, in weights

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        found = layers(model, huge=True)
        if not storage.is_large(model.graph):
            yield from map(self._event, found)
            return
        # Backwards: of a file larger than memory, what was read last is still there; and the next pass finds the start.
        yield from [*map(self._event, read_ahead(found[::-1]))][::-1]

    def _event(self, layer: Linear | Refusal) -> Finding | Refusal:
        return layer if isinstance(layer, Refusal) else self._look(layer)

    def _look(self, layer: Linear) -> Finding:
        k, n = layer.shape
        counts = None if layer.is_huge else block_counts(layer.matrix(), self.block)
        sparsity = 1 - int(layer.columns().count_nonzero() if counts is None else counts.sum()) / (k * n)
        # A short block says little.
        pattern = None if counts is None or k < self.block else tightest_of(counts, k, self.block)
        facts = {
            "op": layer.node.op_type,
            "shape": [k, n],
            "sparsity": sparsity,
            "pattern": None if pattern is None else str(pattern),
            "bytes": layer.tensor.nbytes,
        }
        satisfied = f", satisfies {pattern}" if pattern is not None else ""
        return Finding(layer.name, f"{layer.node.op_type} {k}x{n}, {sparsity:.0%} sparse{satisfied}", facts)
