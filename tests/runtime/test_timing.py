"""Turns are taken in the order promised; no times are judged here."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest

from sparsify import runtime
from sparsify.errors import InputError
from sparsify.runtime import Timing, timing

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
relu (float[M] x) => (float[M] y) { y = Relu(x) }"""


class Recorder:
    """A real session that writes down who ran on what."""

    def __init__(self, name: str, log: list[tuple[str, int]]) -> None:
        self._session = runtime.session(ir.from_onnx_text(MODEL))
        self._name, self._log = name, log

    def __getattr__(self, name: str):
        return getattr(self._session, name)

    def run(self, outputs, feed):
        self._log.append((self._name, feed["x"].size))
        return self._session.run(outputs, feed)


def feeds(*sizes: int) -> list[dict[str, np.ndarray]]:
    return [{"x": np.zeros(n, np.float32), "other": np.zeros(1)} for n in sizes]


def test_sessions_take_turns_on_the_same_feed():
    log: list[tuple[str, int]] = []
    ticks: list[tuple[int, int]] = []
    sessions = {name: Recorder(name, log) for name in "ab"}
    found = runtime.interleave(sessions, feeds(1, 2), runs=4, warmup=1, progress=lambda *t: ticks.append(t))
    warm = [("a", 1), ("b", 1)]
    assert log == warm + [("a", 1), ("b", 1), ("a", 2), ("b", 2)] * 2
    assert ticks == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [t.runs for t in found.values()] == [4, 4]


def test_a_time_limit_leaves_three_rounds(monkeypatch: pytest.MonkeyPatch):
    clock = SimpleNamespace(now=0.0)

    def perf_counter() -> float:
        clock.now += 1.0
        return clock.now

    monkeypatch.setattr(timing, "perf_counter", perf_counter)
    log: list[tuple[str, int]] = []
    found = runtime.interleave({"a": Recorder("a", log)}, feeds(1), runs=100, warmup=10, limit_s=0.5)
    assert len(log) == 1 + 3  # one warm-up round, three timed
    # The clock moves by one second a look, and a run is between two looks.
    assert found["a"] == Timing(1000.0, 1000.0, 1000.0, 3, (1000.0,) * 3)


def test_summary_against_quartiles_by_hand():
    summary = Timing.of((5.0, 1.0, 3.0, 2.0, 4.0))
    assert (summary.p25_ms, summary.median_ms, summary.p75_ms) == (2.0, 3.0, 4.0)
    assert summary.samples_ms == (5.0, 1.0, 3.0, 2.0, 4.0)
    assert summary.to_dict() == {"median_ms": 3.0, "p25_ms": 2.0, "p75_ms": 4.0, "runs": 5}


def test_says_which_session_refuses_the_feed():
    sessions = {"a": runtime.session(ir.from_onnx_text(MODEL))}
    with pytest.raises(InputError) as error:
        runtime.interleave(sessions, [{"x": np.zeros((2, 2), np.float32)}])
    assert error.value.where == "a"
