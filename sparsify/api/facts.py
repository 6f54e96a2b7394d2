"""The parts that reports are made of, as JSON takes them."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime

import sparsify
from sparsify import kernels, modelio, passes, runtime
from sparsify.audit import DriftReport
from sparsify.data import digest
from sparsify.machine import machine

SCHEMA = "sparsify/report-1"  # of the JSON: report/schema/report-1.json, policy in docs/reports.md
_LATENCY_S = 15.0  # for timing two whole models; a median over fewer rounds is still one, and has its spread


def place() -> dict[str, Any]:
    """The machine and the versions of what ran."""
    versions = {
        "sparsify": sparsify.__version__,
        "onnxruntime": onnxruntime.__version__,
        "onnx": onnx.__version__,
        "onnx_ir": ir.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    return {"machine": {**machine().to_dict(), "isa": kernels.isa()}, "versions": versions}


def model(source: str | Path | ir.Model) -> dict[str, Any]:
    """Where a model is, its digest and its bytes."""
    path = None if isinstance(source, ir.Model) else str(source)
    sha256, size = modelio.identity(source)
    return {"path": path, "sha256": sha256, "bytes": size}


def data(feeds: Sequence[Mapping[str, npt.NDArray[Any]]], given: object, synthetic: bool = False) -> dict[str, Any]:
    """What was run: where it came from (None when from memory), how many feeds, their digest, and whether invented."""
    return {
        "source": str(given) if isinstance(given, (str, Path)) else None,
        "synthetic": synthetic,
        "feeds": len(feeds),
        "sha256": digest(feeds),
    }


def named(source: modelio.Source, loaded: ir.Model) -> str | Path | ir.Model:
    """What a model is known by: its path where it has one, else itself as it was loaded."""
    return source if isinstance(source, (str, Path)) else loaded


def latency(
    base: ir.Model, candidate: ir.Model, feeds: Sequence[Mapping[str, npt.NDArray[Any]]], *, threads: int, real: bool
) -> dict[str, Any]:
    """Milliseconds of both models, run in turns in one process, and how many times faster the second is."""
    sessions = {
        name: runtime.session(model, threads=threads) for name, model in (("base", base), ("candidate", candidate))
    }
    timings = runtime.interleave(sessions, list(map(dict, feeds)), limit_s=_LATENCY_S)
    speedup = timings["base"].median_ms / timings["candidate"].median_ms
    measured_on = "data" if real else "synthetic inputs"
    return {**{name: t.to_dict() for name, t in timings.items()}, "speedup": speedup, "measured_on": measured_on}


def drift(found: DriftReport) -> dict[str, Any]:
    """Drift per output and metric with bounds, the verdict of each budget, and what a reader must know."""
    return {k: v for k, v in finite(found.to_dict()).items() if k not in ("layers", "attribution")}


def verdict(found: dict[str, Any]) -> str:
    """What the budgets say, in one sentence."""
    verdicts = found.get("verdicts") or []
    said = {state: "; ".join(v["what"] for v in verdicts if v["state"] == state) for state in ("failed", "undecided")}
    if any(said.values()):
        heads = {"failed": "over budget", "undecided": "undecided"}
        return "; ".join(f"{heads[state]}: {what}" for state, what in said.items() if what)
    return "inside every budget" if verdicts else "no budget was set"


def sizes(base: dict[str, Any], candidate: dict[str, Any]) -> dict[str, Any]:
    """Bytes of both models, and how many times smaller the second is."""
    return {"base": base["bytes"], "candidate": candidate["bytes"], "ratio": base["bytes"] / candidate["bytes"]}


def summary(
    changed: bool, accepted: bool, reason: str, speed: dict[str, Any] | None, found: dict[str, Any] | None
) -> str:
    """What an optimisation came to, in one sentence."""
    judged = f"; {verdict(found)}" if found and found.get("verdicts") else ""
    if not accepted:
        return f"refused: {verdict(found or {})}"
    if not changed:
        return f"unchanged: {reason}{judged}"
    faster = f", {speed['speedup']:.2f}x as fast on {speed['measured_on']}" if speed else ""
    return f"{reason}{faster}{judged}"


def stamp(model: ir.Model, *, source: str, pipeline: str, budgets: Sequence[Any], drift: DriftReport | None) -> None:
    """Write into the model what made it. Only what is the same in every run: no date, no time measured.

    `source` is the sha256 of what it was made from.
    """
    facts = {
        "version": sparsify.__version__,
        "source": f"sha256:{source}",
        "pipeline": pipeline,
        "budget": " ".join(map(str, budgets)),
        "drift": "" if drift is None else _drift_text(drift),
    }
    passes.resolve("stamp")(**facts)(model)


def _drift_text(found: DriftReport) -> str:
    """`output: metric value (low to high), ...; ...` in four digits: more would be noise."""
    return "; ".join(
        f"{name}: " + ", ".join(f"{m} {e.value:.4g} ({e.low:.4g} to {e.high:.4g})" for m, e in output.metrics.items())
        for name, output in found.outputs.items()
    )


def finite(value: Any) -> Any:
    """`value` without what JSON cannot hold: infinities and NaN become text that float() reads."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    if isinstance(value, np.generic):
        return finite(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    return value
