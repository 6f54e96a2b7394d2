"""Costs measured on this machine, for a search on another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparsify import cost, graph, ops
from sparsify.api import facts, intake
from sparsify.api.samples import DataSource, read
from sparsify.errors import UsageError
from sparsify.graph import Linear
from sparsify.machine import threads as default_threads
from sparsify.modelio import Source
from sparsify.pipeline.run import Progress, silence
from sparsify.tune import Settings, candidates
from sparsify.tune.candidates import Kind
from sparsify.tune.costfile import CostFile
from sparsify.tune.options import classes

_ROWS = 128


def profile(
    file: str | Path,
    model: Source | None = None,
    shapes: Sequence[tuple[int, int]] = (),
    data: DataSource | None = None,
    *,
    rows: int | None = None,
    threads: int | None = None,
    effort: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time every form of every linear layer and write that to `file`, for `optimize(costs=file)` elsewhere.

    Args:
        file: to be written.
        model: whose layers to time, in any form.
        shapes: (K, N) of layers to time besides, with and without a bias, without an activation.
        data: says how many rows the layers of `model` see.
        rows: that layers see, instead; 128 without either.
        threads: of the sessions; one for each physical core if not given.
        effort: 0 to 3, of the search that is to use them: which patterns are timed.
        progress: called with (classes done, classes in all, what is under way).

    Returns:
        What `sparsify doctor` reports of it.

    Raises:
        UsageError: nothing to time.
        InputError: a model or data that cannot be used.
    """
    if model is None and not shapes:
        raise UsageError("there is nothing to measure", where="--profile", hint="give --model or --shape KxN")
    settings = Settings(threads=threads or default_threads(), rows=rows, effort=effort, progress=progress or silence)
    layers: list[Linear] = []
    kinds: list[Kind] = []
    if model is not None:
        loaded = intake.load(model)
        sample = None if data is None else read(data, loaded)[0]
        _, layers, kinds = classes(loaded, sample, settings)
    for shape in shapes:
        layer = _layer(shape)
        for biased in (False, True):
            layers.append(layer)
            kinds.append(Kind(shape, rows or _ROWS, biased, ops.Activation.NONE))
    tried = candidates.choices("portable", effort)
    costs = candidates.measure(layers, kinds, tried, threads=settings.threads, progress=settings.progress)
    found = CostFile(settings.threads, costs, facts.place())
    found.write(Path(file))
    return {
        "schema": facts.SCHEMA,
        "kind": "doctor",
        "title": "Sparsify: doctor, costs",
        "summary": f"{len(costs)} classes of layers, {len(tried)} forms each, {settings.threads} threads: {file}",
        "accepted": True,
        **facts.place(),
        "facts": {_text(kind): _fastest(one) for kind, one in costs.items()},
    }


def _layer(shape: tuple[int, int]) -> Linear:
    """A layer of random weights."""
    matrix = np.random.default_rng(0).standard_normal(shape, np.float32)
    model = cost.dense_model(matrix, np.zeros(shape[1], np.float32), ops.Activation.NONE)
    (layer,) = graph.linear_layers(model)
    return layer


def _text(kind: Kind) -> str:
    parts = ("bias" if kind.biased else "", kind.activation.value, "residual" if kind.residual else "")
    ends = " ".join(filter(None, parts))
    return f"{kind.shape[0]}x{kind.shape[1]}, {kind.rows} rows{', ' if ends else ''}{ends}"


def _fastest(costs: candidates.Costs) -> str:
    dense = f"dense {costs.left:.3g} ms"
    if not costs.by_choice:
        return dense
    choice, ms = min(costs.by_choice.items(), key=lambda item: item[1])
    return f"{dense}, {choice} {ms:.3g} ms"
