"""paraphrase-MiniLM-L3 with its 18 linear layers in pruned int8, against onnxruntime's fp32 and dynamic int8.

    python -m benchmarks.minilm [--pattern 16:64] [--rounds N]

One thread, a batch of 8 texts of 128 word pieces, all models in one process and timed in turn (`benchmarks.turns`), so
that a change of clock speed hits all alike: five runs a turn, of which the first, which finds the caches full of the
other models, counts apart. Writes benchmarks/results/minilm.json. Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from statistics import median

import onnxruntime

import sparsify
from benchmarks.turns import Times, milliseconds, take_turns
from models.subjects import dynamic_int8, feeds_of, minilm
from sparsify import kernels, report, runtime
from sparsify.cli import talk

PASSES = "cleanup,prune{{pattern={}}},sparse-int8,fuse-epilogue,share-quantization"
LAYERS = 18
FP32, INT8, PER_CHANNEL, OURS = "onnxruntime fp32", "dynamic int8", "dynamic int8, per channel", "sparsify int8"
# How many times faster than each ours must be; on CPUs whose permutes reach 64 inputs, by pattern.
LEAST = {FP32: 2.5, INT8: 1.2, PER_CHANNEL: 1.2}
WITH_VBMI = {"16:64": {FP32: 3.8, INT8: 1.8, PER_CHANNEL: 1.8}, "8:64": {FP32: 4.6, INT8: 1.8, PER_CHANNEL: 1.8}}
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Found:
    """What was measured at one pattern: by model, and by what ours is held against."""

    pattern: str
    timings: dict[str, Times]
    sizes: dict[str, int]
    ratios: dict[str, float]
    targets: dict[str, float]


def main() -> int:
    """Measure, print, write; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="turns of each model (default: 20)")
    parser.add_argument("--pattern", default="16:64", help="of the zeros (default: 16:64)")
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # onnxruntime's quantiser talks on the root logger

    with tempfile.TemporaryDirectory() as folder:
        timings, sizes = _measure(Path(folder), options.pattern, options.rounds)
    vbmi = kernels.isa() in ("avx512_vbmi", "avx512_bf16")
    targets = WITH_VBMI.get(options.pattern, LEAST) if vbmi else LEAST
    ratios = {name: _ratio(timings[name], timings[OURS]) for name in targets}
    found = Found(options.pattern, timings, sizes, ratios, targets)
    _print(found)
    _write(found)
    return 0 if all(ratios[name] >= target for name, target in targets.items()) else 1


def _ratio(other: Times, ours: Times) -> float:
    """Median over the rounds of how many times longer the other took: both of a round ran side by side in time."""
    return median(a / b for a, b in zip(other.warm, ours.warm, strict=True))


def _measure(folder: Path, pattern: str, rounds: int) -> tuple[dict[str, Times], dict[str, int]]:
    subject = minilm(folder, calibration=4, held_out=4)
    result = sparsify.optimize(subject.model, data=subject.calibration, passes=PASSES.format(pattern), threads=1)
    rewritten = sum(node["decision"] != "left" for node in result.report["nodes"])
    if rewritten != LAYERS:
        sys.exit(f"error: {rewritten} of {LAYERS} linear layers were rewritten: this is not what the target is about")
    files = {
        FP32: subject.model,
        INT8: dynamic_int8(subject.model, folder / "int8.onnx"),
        PER_CHANNEL: dynamic_int8(subject.model, folder / "int8-per-channel.onnx", per_channel=True),
        OURS: folder / "ours.onnx",
    }
    result.save(files[OURS])
    sessions = {name: runtime.session(file, threads=1, native=name == OURS) for name, file in files.items()}
    feed = feeds_of(subject.held_out)[0]
    timers = {name: partial(milliseconds, partial(session.run, None, feed)) for name, session in sessions.items()}
    timings = take_turns(timers, rounds, limit_s=600)
    return timings, {name: runtime.size_bytes(file) for name, file in files.items()}


def _print(found: Found) -> None:
    rows = []
    for name, times in found.timings.items():
        time = runtime.Timing.of(times.warm)
        against = ("", "") if name == OURS else _verdict(found.ratios[name], found.targets[name])
        latency = f"{time.median_ms:.2f} ms", f"{time.p25_ms:.2f} to {time.p75_ms:.2f}"
        rows.append((name, f"{found.sizes[name] / 1e6:.1f} MB", *latency, f"{median(times.cold):.2f} ms", *against))
    columns = ("", ">size", ">median", ">middle half", ">first", ">ours is", "target")
    title = f"paraphrase-MiniLM-L3-v2 at {found.pattern}, 8 x 128, 1 thread"
    talk.show_table(report.Table(title, columns, tuple(rows)))


def _verdict(ratio: float, target: float) -> tuple[str, str]:
    return f"{ratio:.2f}x faster", f"{target}x: {'held' if ratio >= target else 'MISSED'}"


def _write(found: Found) -> None:
    RESULTS.mkdir(exist_ok=True)
    result = {
        "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "onnxruntime": onnxruntime.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "isa": kernels.isa(),
        "passes": PASSES.format(found.pattern),
        "models": {
            name: {**runtime.Timing.of(t.warm).to_dict(), "first_ms": median(t.cold), "size": found.sizes[name]}
            for name, t in found.timings.items()
        },
        "faster_than": {name: {"ratio": ratio, "target": found.targets[name]} for name, ratio in found.ratios.items()},
    }
    (RESULTS / "minilm.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
