"""Two threads against one: our int8 layers, and onnxruntime's own fp32 product where it takes as long.

    python -m benchmarks.threads [--rounds N]

Sessions with onnxruntime's own settings: workers wait busily. So only one session of two threads lives at a time,
beside one of one thread; both take turns of 60 runs, of which the first few do not count. `x` is the median of the
rounds' ratios, `lost` what two threads take beyond half of the time of one. Where the two cores are far apart, with
no cache in common, the whole table is worse, for everybody: compare rows of one run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from benchmarks.kernels import BALANCED, bound, sparse
from sparsify import kernels, report, runtime
from sparsify.cli import talk
from sparsify.cost import dense_model
from sparsify.ops import Activation, Values
from sparsify.patterns import Pattern

LAYERS = ((768, 3072, 128), (384, 384, 1024), (384, 1536, 1024), (768, 768, 128), (768, 3072, 16))  # K, N, rows
THEIRS = ((256, 256, 128), (256, 256, 64), (256, 256, 32))
RUNS, FIRST = 60, 5


def contenders() -> Iterator[tuple[str, Any, int, int]]:
    """Name, model, K and rows."""
    rng = np.random.default_rng(0)
    for k, n, rows in LAYERS:
        weight = rng.standard_normal((k, n)).astype(np.float32)
        for pattern in BALANCED:
            pruned = np.where(Pattern.parse(pattern).project(np.abs(weight)), weight, 0)
            yield f"int8 {pattern}, {k}x{n}, {rows} rows", sparse(pruned, "ours", Values.INT8).model, k, rows
    for k, n, rows in THEIRS:
        weight = rng.standard_normal((k, n)).astype(np.float32)
        model = dense_model(weight, np.zeros(n, np.float32), Activation.NONE)
        yield f"onnxruntime fp32, {k}x{n}, {rows} rows", model, k, rows


def busy_session(model: ir.Model, threads: int) -> runtime.Session:
    """A session whose workers wait busily after a run, as most programs' do; `runtime.session` has them stop."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    kernels.register(options)
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)


def turn(run: Callable[[], None]) -> float:
    """Median microseconds of a turn."""
    taken = []
    for _ in range(FIRST + RUNS):
        began = time.perf_counter()
        run()
        taken.append(1e6 * (time.perf_counter() - began))
    return median(taken[FIRST:])


def measure(model: Any, k: int, rows: int, rounds: int) -> tuple[float, float, float]:
    """Microseconds of one thread and of two, and the ratio."""
    x = np.random.default_rng(1).standard_normal((rows, k)).astype(np.float32)
    one, two = (bound(busy_session(model, threads), x) for threads in (1, 2))
    turns = [(turn(one), turn(two)) for _ in range(rounds)]
    alone, both = (median(times) for times in zip(*turns, strict=True))
    return alone, both, median(a / b for a, b in turns)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="turns of each session (default: 15)")
    rounds = parser.parse_args().rounds
    cells = []
    for name, model, k, rows in contenders():
        one, two, ratio = measure(model, k, rows, rounds)
        cells.append((name, f"{one:.1f}", f"{two:.1f}", f"{ratio:.2f}", f"{two - one / 2:.1f}"))
    columns = ("", ">one, us", ">two, us", ">x", ">lost, us")
    talk.show_table(report.Table("Two threads against one", columns, tuple(cells)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
