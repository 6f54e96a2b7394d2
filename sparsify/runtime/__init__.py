"""onnxruntime sessions with our kernels: open, run, time, look inside, invent inputs."""

from __future__ import annotations

from sparsify.runtime.moments import counted, second_moments
from sparsify.runtime.probe import Probe, capture, observe_rows, probe
from sparsify.runtime.sessions import Session, calls_native, run, session
from sparsify.runtime.source import Skeleton, Source, opened, size_bytes
from sparsify.runtime.stages import Stages
from sparsify.runtime.synth import synthesize
from sparsify.runtime.timing import Timing, interleave
from sparsify.runtime.trials import Trials

__all__ = [
    "Probe",
    "Session",
    "Skeleton",
    "Source",
    "Stages",
    "Timing",
    "Trials",
    "calls_native",
    "capture",
    "counted",
    "interleave",
    "observe_rows",
    "opened",
    "probe",
    "run",
    "second_moments",
    "session",
    "size_bytes",
    "synthesize",
]
