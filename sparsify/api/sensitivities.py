"""What a model loses by pruning one layer alone, as a report tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from sparsify import graph, sensitivity
from sparsify.api.samples import Feed
from sparsify.machine import learning_memory
from sparsify.parallel import one_blas_thread
from sparsify.patterns import Pattern
from sparsify.pipeline.run import Progress, silence

GOALS = tuple((Pattern(n, 64), 1 - n / 64) for n in (32, 16, 8))  # 50, 75 and 87.5 % zeros
_LEAST = 4096  # weights; `prune` leaves smaller matrices alone


def measure(
    model: ir.Model,
    samples: Sequence[Feed],
    *,
    memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """One row for each weight, in the order of the graph; those of which nothing can be said are left out.

    Args:
        model: left as it is.
        samples: some say what the layers see, others are what the drift is measured on.
        memory: MiB for second moments; a quarter of the machine's if not given.
        threads: of onnxruntime.
        progress: called with (weights done, weights in all, what is under way).

    Raises:
        InputError: the model does not run on the samples.
    """
    layers = [layer for layer in graph.linear_layers(model) if layer.tensor.size >= _LEAST]
    with one_blas_thread():
        found = sensitivity.measure(
            model,
            layers,
            samples,
            GOALS,
            memory=learning_memory(memory),
            threads=threads,
            progress=progress or silence,
        )
    return [
        {
            "name": one.names[0],
            "shared_with": list(one.names[1:]),
            "shape": list(one.shape),
            "sparsities": list(one.curve.sparsities),
            "drifts": list(one.curve.drifts),
        }
        for one in found
    ]
