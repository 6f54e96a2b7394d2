"""What pruning costs in accuracy, on the models of `benchmarks.tasks`. Writes docs/accuracy.md.

    python -m benchmarks.accuracy [--again] [--only TEXT] [--page]

Each row runs in a process of its own, which tells its peak memory, and is kept in benchmarks/results/accuracy.json: an
interrupted run goes on where it was. The page is written from what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import onnxruntime
import scipy

from benchmarks import accuracy_page, peer
from benchmarks.tasks import TASKS, Answers, Task
from sparsify import kernels, modelio, runtime
from sparsify.machine import machine
from sparsify.pipeline import Pipeline, parse

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
PAGE = Path(__file__).parent.parent / "docs" / "accuracy.md"
FP32, INT8 = "fp32", "int8"
INT8_ONLY = "sparse-int8"
METHODS = ("magnitude", "wanda", "obs", "auto", "uneven")
_OPTIONS = {"uneven": "method=auto,uneven=true"}


def main() -> int:
    """Measure what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="measure rows that were measured before, too")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row is not None:
        print(json.dumps(_measure(*options.row.split(" ", 1))))
        return 0
    for name in [] if options.page else rows():
        if options.only in name and (options.again or name not in known()):
            print(f"measuring {name}", file=sys.stderr)
            command = [sys.executable, "-m", "benchmarks.accuracy", "--row", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                print(f"error: {name} failed", file=sys.stderr)
                continue
            found = {**known(), name: json.loads(done.stdout.splitlines()[-1])}
            RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    PAGE.write_text(accuracy_page.page(TASKS, rows(), known()), encoding="utf-8")
    return 0


def rows() -> dict[str, str]:
    """Pipelines by `task row`; empty where nothing of ours runs. A task's others are compared with its first."""
    found = {}
    for key, task in TASKS.items():
        int8 = ",sparse-int8" if task.int8 else ""
        found[f"{key} {FP32}"] = ""
        found[f"{key} {INT8}"] = INT8_ONLY
        for level in task.levels:
            for method in METHODS:
                how = _OPTIONS.get(method, f"method={method}") + ("" if task.int8 else ",levels=0")
                found[f"{key} {level} {method}"] = f"prune{{min_size=1,pattern={level},{how}}}{int8}"
        for name in peer.ROWS:
            found[f"{key} {name}"] = ""
    return found


def _measure(key: str, row: str) -> dict[str, Any]:
    RESULTS.parent.mkdir(exist_ok=True)
    task = TASKS[key]
    feeds = task.calibration() if row != FP32 else []
    load, wall, cpu = os.getloadavg()[0], time.perf_counter(), time.process_time()
    facts: dict[str, Any] = {}
    if row in peer.ROWS:
        model, facts = peer.prune(task.model(), feeds, peer.ROWS[row], RESULTS.parent)
    else:
        model, facts = _pruned(task, rows()[f"{key} {row}"], feeds)
    found = {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "load": load,
        "place": _place(),
        "setting": task.setting,
        **facts,
    }
    answers = task.answer(runtime.session(model, spin=False))
    base = RESULTS.with_name(f"accuracy-{key}.npz")
    if row == FP32:
        np.savez(base, **answers)  # type: ignore[arg-type]
    return {**found, **task.score(_answers(base), answers)}


def _pruned(task: Task, passes: str, feeds: list[dict[str, Any]]) -> tuple[Any, dict[str, Any]]:
    """The model after `passes`, and what they say of themselves."""
    model = modelio.load(task.model())
    if not passes:
        return model, {}
    ran = Pipeline(parse(passes)).run(model, sample=feeds[0], calibration=feeds)
    counts, wanted = [len(step.changes) for step in ran.steps], task.layers + (task.heads if passes == INT8_ONLY else 0)
    if any(count != wanted for count in counts):
        sys.exit(f"error: of {wanted} linear layers {counts} were changed: {ran.steps[0].refusals[:3]}")
    done = [c.facts for c in ran.steps[0].changes]
    errors, surgeon = (
        {c.node: c.facts[name] for c in ran.steps[0].changes if name in c.facts}
        for name in ("output_error", "obs_error")
    )
    weights = [f["shape"][0] * f["shape"][1] for f in done]
    zeros = [w * f.get("sparsity", 0.0) for w, f in zip(weights, done, strict=True)]
    return model, {
        "layer_error": mean(errors.values()) if errors else None,
        "layer_errors": errors,
        "obs_errors": surgeon,
        "sparsity": sum(zeros) / sum(weights),
    }


def _answers(path: Path) -> Answers:
    with np.load(path) as data:
        return dict(data)


def _place() -> str:
    """CPU, its instruction set, and versions, for people."""
    here = machine()
    libraries = f"onnxruntime {onnxruntime.__version__}, NumPy {np.__version__}, SciPy {scipy.__version__}"
    cores = f"{here.cpu}, {here.physical_cores} cores, {kernels.isa()} kernels"
    return f"{cores}; Python {platform.python_version()}, {libraries}"


def known() -> Mapping[str, dict[str, Any]]:
    """What was measured so far, by `task row`."""
    found: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


if __name__ == "__main__":
    sys.exit(main())
