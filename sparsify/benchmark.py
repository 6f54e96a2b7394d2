"""Models side by side: size and latency, taken in turns in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from sparsify import data, kernels, runtime
from sparsify.data import Feed
from sparsify.errors import InputError
from sparsify.runtime import Source, Timing


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    p25: float
    p75: float


@dataclass(frozen=True)
class Contender:
    """One model's result.

    Attributes:
        name: its path, or the name that it was given.
        size_bytes: with external data.
        timing: of one run.
        speedup: over the first model, round by round: its time over this one's in the same round.
        native: whether it ran on our kernels.
    """

    name: str
    size_bytes: int
    timing: Timing
    speedup: Spread
    native: bool

    def to_dict(self) -> dict[str, Any]:
        """As JSON carries it."""
        return {
            "name": self.name,
            "size_bytes": self.size_bytes,
            "latency": self.timing.to_dict(),
            "speedup": {"median": self.speedup.median, "p25": self.speedup.p25, "p75": self.speedup.p75},
            "native": self.native,
        }


@dataclass(frozen=True)
class BenchReport:
    """What a benchmark found.

    Attributes:
        models: in the order given; the first is what the others are compared with.
        threads: inside an operator; None for onnxruntime's choice.
        shapes: of the first feed, by input.
        synthetic: the feeds were invented, so that speed that depends on values may differ on real data.
        isa: path of our kernels, None where they are not built.
        onnxruntime: its version.
    """

    models: tuple[Contender, ...]
    threads: int | None
    shapes: Mapping[str, tuple[int, ...]]
    synthetic: bool
    isa: str | None
    onnxruntime: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON carries it."""
        return {
            "models": [m.to_dict() for m in self.models],
            "threads": self.threads,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "synthetic": self.synthetic,
            "isa": self.isa,
            "onnxruntime": self.onnxruntime,
        }


def bench(
    models: Sequence[Source] | Mapping[str, Source],
    feeds: Sequence[Feed] | None = None,
    threads: int | None = None,
    *,
    runs: int = 50,
    warmup: int = 3,
    limit_s: float = 60.0,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    inputs: Iterable[Any] | None = None,
    native: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> BenchReport:
    """Time models in turns on the same feeds. Arguments not named here are those of `runtime.interleave`.

    Args:
        models: at least one, in any form, all with the same inputs.
        feeds: data; one feed is invented when None (`runtime.synthesize`, with `seed` and `sizes`).
        inputs: to invent it for; the first session's, which say less, when None.
        threads: inside an operator; onnxruntime's choice when None.
        native: run our operators on our kernels where these are built.

    Raises:
        InputError: a model or feed cannot be used, or the models take different inputs.
    """
    named = dict(models) if isinstance(models, Mapping) else _named(models)
    sessions = {name: runtime.session(m, threads=threads, native=native) for name, m in named.items()}
    first = next(iter(sessions.values()))
    _same_inputs(sessions)
    used = feeds if feeds is not None else [runtime.synthesize(inputs or first.get_inputs(), seed=seed, sizes=sizes)]
    for session in sessions.values():
        data.check(used, session.get_inputs())
    timings = runtime.interleave(sessions, used, runs=runs, warmup=warmup, limit_s=limit_s, progress=progress)
    reference = next(iter(timings.values()))
    contenders = tuple(
        Contender(
            name,
            runtime.size_bytes(model),
            timings[name],
            _speedup(reference, timings[name]),
            native and runtime.calls_native(model),
        )
        for name, model in named.items()
    )
    shapes = {name: array.shape for name, array in used[0].items()}
    return BenchReport(contenders, threads, shapes, feeds is None, kernels.isa(), onnxruntime.__version__)


def _same_inputs(sessions: Mapping[str, runtime.Session]) -> None:
    takes = {name: sorted(i.name for i in session.get_inputs()) for name, session in sessions.items()}
    first, *others = takes
    for other in others:
        if takes[other] != takes[first]:
            raise InputError(
                f"the models take different inputs: {', '.join(takes[first])}; {', '.join(takes[other])}",
                where=f"{first}; {other}",
                hint="only models of the same interface can be compared",
            )


def _named(models: Sequence[Source]) -> dict[str, Source]:
    """Paths are their own names, others are numbered; a name that comes twice gets its number too."""
    named: dict[str, Source] = {}
    for index, model in enumerate(models):
        name = str(model) if isinstance(model, (str, Path)) else f"model {index}"
        named[f"{name} ({index})" if name in named else name] = model
    return named


def _speedup(reference: Timing, timing: Timing) -> Spread:
    ratios = np.array(reference.samples_ms) / np.array(timing.samples_ms)
    low, middle, high = (float(q) for q in np.percentile(ratios, (25, 50, 75)))
    return Spread(middle, low, high)
