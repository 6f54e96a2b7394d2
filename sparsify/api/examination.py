"""What will run on this machine, and how fast."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from sparsify import cost, formats, kernels, ops
from sparsify.api import facts
from sparsify.machine import threads as default_threads
from sparsify.patterns import Pattern
from sparsify.solvers.quantize import quantize

# A layer of BERT-base's feed-forward part on a usual text: large enough to show the kernels, small enough to wait for.
SHAPE, ROWS = (768, 3072), 128
PATTERN = "16:64"


def examine() -> dict[str, Any]:
    """Facts of CPU, kernels and onnxruntime, and one layer measured dense and sparse."""
    place = facts.place()
    here = place["machine"]
    path = kernels.library_path()
    forced = os.environ.get(kernels.ISA_VARIABLE)
    measured = _measure(threads=default_threads())
    return {
        "schema": facts.SCHEMA,
        "kind": "doctor",
        "title": "Sparsify: doctor",
        "summary": _summary(measured),
        "accepted": True,
        **place,
        "facts": {
            "CPU": here["cpu"] or "unknown",
            "cores": f"{here['physical_cores'] or 'unknown'} physical, {here['logical_cores']} logical, usable",
            "instruction sets": " ".join(here["isa_flags"]) or "unknown",
            "operating system": here["os"],
            "onnxruntime": place["versions"]["onnxruntime"],
            "kernels": str(path)
            if path
            else "not built: models run on onnxruntime's own operators, correctly but slower",
            "ISA paths": ", ".join(kernels.isas()) or "none",
            "ISA path chosen": kernels.isa() or "none",
            **({"forced by": f"{kernels.ISA_VARIABLE}={forced}"} if forced else {}),
        },
        "measured": measured,
    }


def _measure(threads: int) -> dict[str, Any]:
    """One layer, dense in fp32 against pruned in int8, in onnxruntime sessions."""
    random = np.random.default_rng(0)
    pattern = Pattern.parse(PATTERN)
    weight = random.standard_normal(SHAPE).astype(np.float32)
    weight *= pattern.project(np.abs(weight))
    values, scale = quantize(weight)
    encoded = formats.encode(values)
    operator = ops.Operator(ops.Values.INT8, encoded.encoding, ops.Activation.NONE)
    arrays = ops.inputs_of(encoded, np.zeros(SHAPE[1], np.float32), scale)
    found = cost.measure(weight, arrays, operator, rows=ROWS, threads=threads)
    return {
        "shape": list(SHAPE),
        "rows": ROWS,
        "threads": threads,
        "pattern": PATTERN,
        "dense_ms": found.dense_ms,
        "rewritten_ms": found.rewritten_ms,
        "speedup": found.speedup,
    }


def _summary(found: dict[str, Any]) -> str:
    shape = "x".join(map(str, found["shape"]))
    return (
        f"a {shape} layer, {found['rows']} rows, {found['threads']} threads: dense fp32 {found['dense_ms']:.3g} ms, "
        f"{found['pattern']} int8 {found['rewritten_ms']:.3g} ms: {found['speedup']:.2f}x as fast"
    )
