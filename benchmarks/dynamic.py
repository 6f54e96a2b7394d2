"""A layer fed by Relu with the operator that skips zeros, against the same layer dense, in fp32 and in int8.

    python -m benchmarks.dynamic [--rounds N]

4096x4096, 1 to 8 rows, one and two threads, inputs of which a share is 0 in all rows; everybody in turn in one process,
medians. Writes docs/dynamic.md.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.popsparse import cornered, dense_session
from sparsify import kernels, ops, runtime
from sparsify.cost import operator_model
from sparsify.machine import machine
from sparsify.passes.dynamic_sparse import DynamicSparse

SIZE, ROWS, ZEROS, THREADS = 4096, (1, 4, 8), (0.0, 0.5, 0.8, 0.9, 0.95), (1, 2)
PAGE = Path(__file__).parent.parent / "docs" / "dynamic.md"


def sessions(threads: int) -> dict[str, runtime.Session]:
    """By name; onnxruntime's dense layers first."""
    matrix = np.random.default_rng(0).standard_normal((SIZE, SIZE), np.float32)
    found = {f"dense {kind}": dense_session(kind, threads) for kind in ("fp32", "int8")}
    for values in ("fp32", "bf16", "int8"):
        encoded = DynamicSparse(values=values).encode(matrix)
        arrays = ops.inputs_of(encoded.weight, np.zeros(SIZE, np.float32), encoded.scale)
        model = cornered(operator_model(SIZE, arrays, encoded.operator))
        found[f"ours {values}"] = runtime.session(model, threads=threads)
    return found


def measure(rounds: int) -> Iterator[dict[str, Any]]:
    """A row for each number of threads, rows and share of zeros: milliseconds by contender."""
    rng = np.random.default_rng(1)
    for threads in THREADS:
        contenders = sessions(threads)
        for rows in ROWS:
            for zeros in ZEROS:
                x = rng.standard_normal((rows, SIZE)).astype(np.float32)
                x[:, rng.permutation(SIZE)[: round(zeros * SIZE)]] = 0
                found = runtime.interleave(contenders, [{"X": x}], runs=rounds, limit_s=4)
                times = {name: timing.median_ms for name, timing in found.items()}
                yield {"threads": threads, "rows": rows, "zeros": zeros, **times}


def page(rows: list[dict[str, Any]], rounds: int) -> str:
    """docs/dynamic.md."""
    names = [name for name in rows[0] if name.startswith(("dense", "ours"))]
    lines = [
        "# Skipping zeros of Relu",
        "",
        "Written by `python -m benchmarks.dynamic`; do not edit.",
        "",
        f"A layer {SIZE}x{SIZE}, milliseconds, medians of up to {rounds} rounds in one process. *Zeros* is the share",
        "of inputs that are 0 in all rows. Dense int8 is onnxruntime's dynamic quantisation; the last columns are how",
        "many times faster than it ours with bfloat16 and with int8 weights are. Ours never round activations.",
        "",
        f"Measured on {machine().cpu}, {kernels.isa()} kernels.",
        "",
        f"| threads | rows | zeros | {' | '.join(names)} | bf16 against dense int8 | int8 against it |",
        "|--:" * (len(names) + 5) + "|",
    ]
    for row in rows:
        times = " | ".join(f"{row[name]:.3f}" for name in names)
        gains = " | ".join(f"{row['dense int8'] / row[f'ours {values}']:.1f}x" for values in ("bf16", "int8"))
        lines.append(f"| {row['threads']} | {row['rows']} | {row['zeros']:.0%} | {times} | {gains} |")
    return "\n".join([*lines, ""])


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    logging.getLogger().setLevel(logging.ERROR)  # onnxruntime's quantiser talks on the root logger
    text = page(list(measure(rounds)), rounds)
    print(text)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
