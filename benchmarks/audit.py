"""What an audit costs beside the runs that it cannot do without, and the memory that attribution takes.

    python -m benchmarks.audit [--rounds N]

600 posts of 20 Newsgroups through all-MiniLM-L6-v2 and a copy of it that is half pruned, one thread. In turn: both
models run over the feeds and nothing else, and a whole audit of them, sessions and statistics included. What counts is
the time of the processor (user and system), which other work on the machine hardly moves, and the ratio within a round.
Then `sparsify audit --layers` in a process of its own, whose memory is looked at every 50 ms (pages of mapped files
included).

Writes benchmarks/results/audit.json. Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import memory, newsgroups
from benchmarks.magnitude import pruned
from models.bert import minilm_l6
from models.text import Feed
from sparsify import report, runtime
from sparsify.audit import audit
from sparsify.cli import talk
from sparsify.machine import machine

OVERHEAD, GIB = 1.15, 2.0  # the targets: times the two inferences, and GiB at the peak
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Measure, print, write; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of both, in turn (default: 3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sparsify-benchmark-") as folder:
        base = minilm_l6()
        candidate = pruned(base, 0.5, Path(folder) / "half.onnx")
        feeds = newsgroups.judged()
        rounds = [_round(base, candidate, feeds) for _ in range(options.rounds)]
        status, peak, own = _attribution(base, candidate, feeds, Path(folder))
    if status not in (0, 1):
        sys.exit(f"error: the audit ended with {status}")
    found = {
        "inference_s": median(r[0] for r in rounds),
        "opening_s": median(r[1] for r in rounds),
        "audit_s": median(r[2] for r in rounds),
        "overhead": median(r[2] / r[0] for r in rounds),
        "overhead_without_opening": median((r[2] - r[1]) / r[0] for r in rounds),
        "attribution_peak_gib": peak / 2**30,
        "attribution_anonymous_gib": own / 2**30,
    }
    _print(found)
    _write(found, options.rounds)
    return 0 if found["overhead"] <= OVERHEAD and found["attribution_peak_gib"] <= GIB else 1


def _round(base: Path, candidate: Path, feeds: list[Feed]) -> tuple[float, float, float]:
    """Seconds of the processor: two inferences, opening the two sessions, a whole audit."""
    sessions: list[runtime.Session] = []

    def opened() -> None:
        sessions.extend(runtime.session(model, threads=1, deterministic=True) for model in (base, candidate))

    def inferred() -> None:
        for session in sessions:
            for feed in feeds:
                runtime.run(session, feed)

    opening = _seconds(opened)
    inference = _seconds(inferred)
    sessions.clear()
    return inference, opening, _seconds(lambda: audit(base, candidate, feeds, threads=1))


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _attribution(base: Path, candidate: Path, feeds: list[Feed], folder: Path) -> tuple[int, int, int]:
    """Exit status, bytes at the peak, and those that are no pages of files."""
    data = folder / "data"
    data.mkdir()
    for number, feed in enumerate(feeds):
        np.savez(data / f"{number:03}.npz", **feed)  # type: ignore[arg-type]
    command = [sys.executable, "-m", "sparsify", "audit", str(base), str(candidate), "--data", str(data), "--layers"]
    found = memory.watch([*command, "--report", str(folder / "audit.json")])
    return found.status, found.peak, found.anonymous


def _print(found: dict[str, float]) -> None:
    rows = [
        ("two inferences", f"{found['inference_s']:.2f} s", ""),
        ("opening two sessions", f"{found['opening_s']:.2f} s", ""),
        ("a whole audit", f"{found['audit_s']:.2f} s", ""),
        ("audit / inferences", f"{found['overhead']:.3f}x", _verdict(found["overhead"], OVERHEAD, "x")),
        ("the same without opening", f"{found['overhead_without_opening']:.3f}x", ""),
        (
            "--layers, memory at the peak",
            f"{found['attribution_peak_gib']:.2f} GiB",
            _verdict(found["attribution_peak_gib"], GIB, " GiB"),
        ),
        ("of which no mapped files", f"{found['attribution_anonymous_gib']:.2f} GiB", ""),
    ]
    talk.show_table(report.Table("Audit of all-MiniLM-L6-v2, 600 texts, 1 thread", ("", ">", "target"), tuple(rows)))


def _verdict(value: float, target: float, unit: str) -> str:
    return f"{target}{unit}: {'held' if value <= target else 'MISSED'}"


def _write(found: dict[str, float], rounds: int) -> None:
    RESULTS.mkdir(exist_ok=True)
    result = {
        "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine().to_dict(),
        "rounds": rounds,
        "targets": {"overhead": OVERHEAD, "attribution_peak_gib": GIB},
        **found,
    }
    (RESULTS / "audit.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
