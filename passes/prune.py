"""Zero the smallest weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from sparsify.errors import UsageError
from sparsify.graph import FloatArray, Linear, find_linear, node_name, readers
from sparsify.patterns import Pattern
from sparsify.rewrite import Change, Event, Pass, Refusal, layers
from sparsify.solvers import magnitude

_HALF = Pattern(32, 64)


@dataclass(frozen=True)
class Prune(Pass):
    """Zeroes the weights of smallest magnitude in linear layers, under a pattern.

    What:
        The weight keeps its name, shape and place; values change to zero. It pays once a sparse pass follows.
    When it fires:
        Every MatMul and Gemm with a constant fp32 matrix of `min_size` weights or more. A weight that several
        layers share is pruned once and reported for each. N:M runs along the layer's inputs, whichever way
        the weight is stored.
    When it refuses:
        The weight is smaller, already as sparse, holds a NaN or an infinity, is an output of the model, is read
        by something that is no linear layer (an embedding, say), or is shared by layers that use it in both
        orientations under N:M.
    Mathematics:
        W' = W * M with the mask M of the pattern that keeps the largest |w|; see `sparsify.solvers.magnitude`.
    Cost:
        A selection over each weight; none at run time.
    Drift:
        ||W - W'||_F is the least that the pattern allows; what it does to the outputs must be measured.
    Source:
        Han, Pool, Tran, Dally, "Learning both Weights and Connections for Efficient Neural Networks", 2015.
    """

    name: ClassVar[str] = "prune"

    pattern: Pattern = _HALF  # `unstructured` or N:M
    sparsity: float = 0.0  # share of zeros, for `unstructured`; N:M implies its own
    min_size: int = 4096  # weights; smaller matrices are left alone

    def __post_init__(self) -> None:
        implied = self.pattern.sparsity
        if implied is None and not 0 < self.sparsity < 1:
            raise UsageError(
                f"`sparsity` must be between 0 and 1, got {self.sparsity:g}",
                where="pass `prune`",
                hint="prune{pattern=unstructured,sparsity=0.9} keeps one weight in ten",
            )
        if implied is not None and self.sparsity not in (0, implied):
            raise UsageError(
                f"pattern {self.pattern} means sparsity {implied:g}, not {self.sparsity:g}",
                where="pass `prune`",
                hint="leave `sparsity` out, or take pattern=unstructured",
            )

    @property
    def target(self) -> float:
        """Share of zeros aimed at."""
        implied = self.pattern.sparsity
        return self.sparsity if implied is None else implied

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        done: dict[ir.Value, tuple[str, dict[str, Any]] | str] = {}
        for layer in layers(model):
            if isinstance(layer, Refusal):
                yield layer
                continue
            if layer.source not in done:
                done[layer.source] = self._prune(layer)
            outcome = done[layer.source]
            facts = {"shape": list(layer.shape)}
            if isinstance(outcome, str):
                yield Refusal(layer.name, outcome, facts)
            else:
                yield Change(layer.name, outcome[0], facts | outcome[1])

    def _prune(self, layer: Linear) -> tuple[str, dict[str, Any]] | str:
        """Prune the weight of `layer`: what was done, with facts; or why not."""
        if reason := self._obstacle(layer):
            return reason
        weight = layer.matrix()
        before = 1 - np.count_nonzero(weight) / weight.size
        if not np.isfinite(weight).all():
            return "the weight holds a NaN or an infinity"
        if before >= self.target:
            return f"the weight is already {before:.0%} sparse, the target is {self.target:.0%}"
        mask, pruned = magnitude.prune(weight, self.pattern, self.sparsity)
        if (mask | (weight == 0)).all():
            return f"the weight already satisfies {self.pattern}"
        _store(layer, pruned)
        after = 1 - np.count_nonzero(pruned) / pruned.size
        kept = float(np.square(pruned, dtype=np.float64).sum() / np.square(weight, dtype=np.float64).sum())
        facts = {"sparsity": after, "sparsity_before": before, "pattern": str(self.pattern), "energy_kept": kept}
        return f"pruned to {self.pattern}, {after:.0%} sparse, {kept:.1%} of the energy kept", facts

    def _obstacle(self, layer: Linear) -> str:
        """Why the weight of `layer` must not be changed; empty if it may."""
        if layer.tensor.size < self.min_size:
            return f"the weight has {layer.tensor.size} weights, fewer than {self.min_size}"
        if layer.source.is_graph_output():
            return "the weight is an output of the model"
        for node, index in readers(layer.source):
            other = find_linear(node)
            if not isinstance(other, Linear) or index != 1:
                return f"the weight is also read by {node.op_type} `{node_name(node)}`"
            if self.pattern.m and other.transposed != layer.transposed:
                return f"the weight is used in both orientations, also by `{other.name}`"
        return ""


def _store(layer: Linear, weight: FloatArray) -> None:
    """Put W [K, N] where the weight of `layer` is stored, in the orientation in which it is stored."""
    stored = np.ascontiguousarray(weight.T if layer.transposed else weight)
    tensor = ir.tensor(stored, name=layer.tensor.name)
    layer.source.const_value = tensor  # of a Constant node it is a copy that other passes may look at
    if (node := layer.source.producer()) is not None:
        node.attributes["value"] = ir.AttrTensor("value", tensor)
