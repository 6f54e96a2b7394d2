"""Models side by side: latency and size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sparsify.api import facts, intake
from sparsify.api.samples import DataSource, read, told_of
from sparsify.benchmark import bench
from sparsify.data import Reading
from sparsify.machine import threads as default_threads


def compare(
    models: Sequence[str | Path],
    data: DataSource | None = None,
    *,
    threads: int | None = None,
    seed: int = 0,
    reading: Reading | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """What `sparsify bench` reports: the models timed in turns, the first being what others are compared with.

    Args:
        models: paths, all with the same inputs.
        data: as in `optimize`; synthetic inputs if not given.
        threads: of the sessions; one for each physical core if not given.
        seed: of synthetic inputs.
        reading: as in `optimize`.
        progress: called with (rounds done, rounds in all).

    Raises:
        InputError: models or data that cannot be used, or that do not belong together.
    """
    threads = threads or default_threads()
    loaded = [intake.load(path) for path in models]  # says more about a bad file than onnxruntime does
    feeds = None if data is None else read(data, loaded[0], reading)
    with told_of(feeds):
        report = bench(list(models), feeds, threads, seed=seed, inputs=loaded[0].graph.inputs, progress=progress)
    found = report.to_dict()
    fastest = max(found["models"], key=lambda m: float(m["speedup"]["median"]))
    return {
        "schema": facts.SCHEMA,
        "kind": "bench",
        "title": "Sparsify: bench",
        "summary": f"{fastest['name']} is fastest: {fastest['speedup']['median']:.2f}x {found['models'][0]['name']}",
        "accepted": True,
        **facts.place(),
        **found,
        "measured_on": "data" if feeds else "synthetic inputs",
    }
