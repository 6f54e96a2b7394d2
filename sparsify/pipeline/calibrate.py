"""What data says about each linear layer, put where passes find it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from sparsify import graph, runtime

Feed = Mapping[str, npt.NDArray[Any]]


def calibrate(model: ir.Model, feeds: Sequence[Feed], *, threads: int | None = None) -> None:
    """Put into `meta["moment"]` of each linear layer of the main graph the second moment of its inputs.

    Layers that read the same value share one array. Layers that multiply the transpose of a value are left out.
    """
    layers = [x for x in graph.linear_layers(model) if x.node.graph is model.graph and not x.transposed_x]
    names = {str(layer.x.name) for layer in layers if layer.x.name}
    moments = runtime.second_moments(model, feeds, names, threads=threads)
    for layer in layers:
        moment = moments.get(str(layer.x.name))
        if moment is not None and len(moment) == layer.shape[0]:
            layer.node.meta["moment"] = moment


def forget(model: ir.Model) -> None:
    """Drop the moments: K^2 numbers a layer, of no use once the weights have changed."""
    for layer in graph.linear_layers(model):
        layer.node.meta.pop("moment", None)
