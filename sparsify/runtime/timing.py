"""Latency, honestly: the contenders take turns in one process, and every number has its spread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from sparsify.data import Array
from sparsify.runtime.sessions import Session, input_errors, session_inputs

MIN_RUNS = 3  # a spread needs three; a time limit does not go below


@dataclass(frozen=True)
class Timing:
    """Wall time of one run.

    Attributes:
        median_ms, p25_ms, p75_ms: of all runs, milliseconds.
        runs: how many.
        samples_ms: each run in the order of the rounds; equal places of two contenders stood side by side in time.
    """

    median_ms: float
    p25_ms: float
    p75_ms: float
    runs: int
    samples_ms: tuple[float, ...] = field(repr=False)

    @classmethod
    def of(cls, samples_ms: Sequence[float]) -> Timing:
        """The summary of at least one sample."""
        low, middle, high = (float(q) for q in np.percentile(samples_ms, (25, 50, 75)))
        return cls(middle, low, high, len(samples_ms), tuple(samples_ms))

    def to_dict(self) -> dict[str, Any]:
        """As JSON carries it, without the samples."""
        return {"median_ms": self.median_ms, "p25_ms": self.p25_ms, "p75_ms": self.p75_ms, "runs": self.runs}


def interleave(
    sessions: Mapping[str, Session],
    feeds: Sequence[Mapping[str, Array]],
    *,
    runs: int = 50,
    warmup: int = 3,
    limit_s: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Timing]:
    """Time sessions in turns: A B A B. A drifting clock or a busy machine then hurts all of them alike.

    A round runs every session once on the same feed; feeds are taken in turn. The timed span includes what
    onnxruntime's Python binding costs.

    Args:
        sessions: by name, timed in this order.
        feeds: at least one.
        runs: rounds; fewer when `limit_s` is over, but at least 3.
        warmup: rounds before, not counted.
        limit_s: seconds for everything, warm-up included.
        progress: called with (rounds done, rounds wanted) after each counted round.

    Raises:
        InputError: a feed does not fit a session.
    """
    prepared = {name: [session_inputs(s, feed) for feed in feeds] for name, s in sessions.items()}
    samples: dict[str, list[float]] = {name: [] for name in sessions}
    start = perf_counter()

    def late() -> bool:
        return perf_counter() - start > limit_s

    def one_round(turn: int) -> dict[str, float]:
        return {name: _run_ms(s, prepared[name][turn % len(feeds)], name) for name, s in sessions.items()}

    for turn in range(warmup):
        if turn and late():
            break
        one_round(turn)
    wanted = max(runs, MIN_RUNS)
    for turn in range(wanted):
        if turn >= MIN_RUNS and late():
            break
        for name, took in one_round(turn).items():
            samples[name].append(took)
        if progress is not None:
            progress(turn + 1, wanted)
    return {name: Timing.of(s) for name, s in samples.items()}


def _run_ms(session: Session, feed: Mapping[str, Array], name: str) -> float:
    with input_errors(name):
        began = perf_counter()
        session.run(None, feed)
        return 1e3 * (perf_counter() - began)
