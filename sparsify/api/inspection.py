"""What could be done with a model, on this machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from sparsify import graph, modelio
from sparsify.api import facts
from sparsify.api.samples import synthesise
from sparsify.errors import InputError
from sparsify.machine import threads as default_threads
from sparsify.modelio import Source
from sparsify.pipeline import Pipeline, levels, nodes
from sparsify.pipeline.run import Progress

TRIED = {"o2": 2, "o3": 3}  # levels whose gain is measured


def inspect(
    model: Source, *, threads: int | None = None, rows: int | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """What in `model` is prunable, what already is sparse, and what -O2 and -O3 would gain, measured layer by layer.

    Args:
        model: as in `optimize`; never changed.
        threads: that the model will run on; one for each physical core if not given.
        rows: that linear layers will see; those of the model's own shapes, or a usual number, if not given.
        progress: called with (steps done, steps in all, what is under way).

    Raises:
        InputError: a model that cannot be used.
    """
    threads = threads or default_threads()
    base = modelio.load(model)
    tried = {name: _try(base, number, threads, rows, progress) for name, number in TRIED.items()}
    table = [_row(name, {level: found.get(name) for level, found in tried.items()}) for name in tried["o2"]]
    zeros = {layer.name: float(np.mean(layer.matrix() == 0)) for layer in graph.linear_layers(base)}
    for row in table:
        row["zeros"] = zeros.get(row["name"])
    return facts.finite(
        {
            "kind": "inspect",
            "title": "Sparsify: inspect",
            "summary": _summary(table),
            "accepted": True,
            **facts.place(),
            "threads": threads,
            "rows": rows,
            "model": _facts(base, model),
            "nodes": table,
        }
    )
