"""Pruning that nothing came of is taken back: it would cost accuracy and buy no time.

Layers behind one that is taken back were fitted to what it gave when it was pruned. That it now gives what the dense
model does only removes an error that they made up for in part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from sparsify import graph
from sparsify.pruning import bias_of
from sparsify.rewrite import Pass

PRUNE = "prune"


class Keeper:
    """Remembers the weights of linear layers, to put back those that were pruned in vain."""

    def __init__(self, model: ir.Model) -> None:
        self._weights = {layer.source: layer.tensor for layer in graph.linear_layers(model)}
        biases = ((layer.source, bias_of(layer)) for layer in graph.linear_layers(model))
        self._biases = {source: (bias, bias.const_value) for source, bias in biases if bias is not None}

    def restore(self, model: ir.Model) -> dict[str, float]:
        """Give layers that are still dense their weights of before: the sparsity of each, by its name."""
        restored: dict[str, float] = {}
        for layer in graph.linear_layers(model):
            before = self._weights.get(layer.source)
            if before is None or before is layer.tensor:
                continue
            _put(layer.source, before)
            bias, tensor = self._biases.get(layer.source, (None, None))
            if bias is not None:
                bias.const_value = tensor
            weight = before.numpy()
            restored[layer.name] = float(1 - np.count_nonzero(weight) / weight.size)
        return restored


def wanted(passes: Sequence[Pass], number: int) -> bool:
    """Whether pass `number` prunes for a pass after it that refuses what does not pay."""
    return passes[number].name == PRUNE and awaited(passes, number)


def awaited(passes: Sequence[Pass], number: int) -> bool:
    """Whether there is a pass after pass `number` that refuses what does not pay."""
    return any(getattr(p, "min_speedup", 0) > 0 for p in passes[number + 1 :])


def _put(source: ir.Value, tensor: ir.TensorProtocol) -> None:
    node = source.producer()
    if node is None:
        source.const_value = tensor
    else:
        node.attributes["value"] = ir.AttrTensor("value", tensor)
