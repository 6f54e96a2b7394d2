"""PopSparse's table on a CPU: how many times faster than the same machine's dense product is a sparse one?

    python -m benchmarks.popsparse [--only "fp32 4"]... [--rounds N]

m = k = 4096, density 1/2 to 1/64, blocks of 1x1, 4x4 and 16x16 at random places, n = 4 to 1024 columns (rows of X
here). One thread, ours and onnxruntime's own dense product of the same type (fp32, or dynamically quantised int8) in
turn in one process, medians of the ratio. Beside them stands what "PopSparse" (arXiv 2303.16999) published for a Bow
IPU against its own dense product: gains are compared, not speeds. What was measured is kept in
benchmarks/results/popsparse.json; docs/popsparse.md shows all of it.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnxruntime.quantization import QuantType, quantize_dynamic

from benchmarks.kernels import RESULTS, sparse
from sparsify import kernels, runtime
from sparsify.cost import dense_model
from sparsify.machine import machine
from sparsify.ops import Activation, Values

SIZE, BLOCKS, ROWS = 4096, (1, 4, 16), (4, 16, 64, 256, 1024)
PARTS = (2, 4, 8, 16, 32, 64)  # one in so many weights is not 0
TYPES = {"fp32": Values.FP32, "int8": Values.INT8}
KEPT, PAGE = RESULTS / "popsparse.json", Path(__file__).parent.parent / "docs" / "popsparse.md"

# Speedup of the IPU's static sparsity over its dense product, FP16, m = k = 4096, for n = ROWS; read off the figure of
# the paper's analysis notebook (graphcore-research/sparsity-benchmarks), so within some 10 %.
IPU_FP16 = {
    (1, 8): (1.75, 0.99, 0.61, 0.50, 0.46),
    (1, 16): (2.69, 1.41, 1.06, 0.93, 0.82),
    (1, 32): (3.47, 1.91, 1.72, 1.60, 1.36),
    (4, 8): (1.51, 0.97, 0.90, 1.00, 1.12),
    (4, 16): (2.29, 1.51, 1.72, 1.41, 1.69),
    (16, 4): (2.95, 1.99, 1.81, 1.88, 1.75),
    (16, 8): (4.00, 2.64, 2.47, 1.91, 2.69),
    (16, 16): (4.97, 3.16, 3.01, 3.47, 3.85),
    (16, 32): (6.05, 4.23, 3.93, 4.79, 5.62),
}
# The same, FP32, at the best n: the paper's table.
IPU_FP32 = {(1, 16): 1.4, (16, 16): 5.6}


def weight(block: int, part: int) -> npt.NDArray[np.float32]:
    """W [SIZE, SIZE] of which one block in `part` is there."""
    rng = np.random.default_rng(0)
    blocks = (SIZE // block) ** 2
    mask = np.zeros(blocks, bool)
    mask[rng.permutation(blocks)[: blocks // part]] = True
    there = np.kron(mask.reshape(SIZE // block, -1), np.ones((block, block), bool))
    return np.where(there, rng.standard_normal((SIZE, SIZE), np.float32), np.float32(0))


def cornered(model: ir.Model) -> ir.Model:
    """`model` with its output Y [M, N] cut to its first element: no contender is charged for handing it to Python."""
    (y,) = model.graph.outputs
    bounds = [ir.tensor(np.array(v, np.int64), name=name) for name, v in (("first", [0, 0]), ("last", [1, 1]))]
    values = [ir.Value(name=t.name, type=ir.TensorType(t.dtype), shape=ir.Shape([2]), const_value=t) for t in bounds]
    for value in values:
        model.graph.register_initializer(value)
    corner = ir.Value(name="corner", type=y.type, shape=ir.Shape([1, 1]))
    model.graph.append(ir.Node("", "Slice", [y, *values], outputs=[corner]))
    model.graph.outputs[0] = corner
    return model


def dense_session(kind: str, threads: int = 1) -> runtime.Session:
    """onnxruntime's own product of that type."""
    matrix = np.random.default_rng(1).standard_normal((SIZE, SIZE), np.float32)
    model = cornered(dense_model(matrix, np.zeros(SIZE, np.float32), Activation.NONE))
    if kind == "fp32":
        return runtime.session(model, threads=threads, native=False)
    with tempfile.TemporaryDirectory() as folder:
        path, quantized = Path(folder) / "dense.onnx", Path(folder) / "int8.onnx"
        ir.save(model, path)
        quantize_dynamic(path, quantized, weight_type=QuantType.QInt8, per_channel=True)
        return runtime.session(quantized.read_bytes(), threads=threads, native=False)


def measure(kind: str, block: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Every density and n of one type and block."""
    dense = dense_session(kind)
    for part in PARTS:
        ours = sparse(weight(block, part), "ours", TYPES[kind])
        session = runtime.session(cornered(ours.model), threads=1)
        for rows in ROWS:
            x = np.random.default_rng(2).standard_normal((rows, SIZE)).astype(np.float32)
            found = runtime.interleave({"dense": dense, "ours": session}, [{"X": x}], runs=rounds, warmup=1, limit_s=3)
            pairs = zip(found["dense"].samples_ms, found["ours"].samples_ms, strict=True)
            yield {
                "type": kind,
                "block": block,
                "part": part,
                "rows": rows,
                "dense_ms": found["dense"].median_ms,
                "ours_ms": found["ours"].median_ms,
                "speedup": float(np.median([a / b for a, b in pairs])),
            }


def crossover(speedups: dict[int, float]) -> str:
    """The density from which on the sparse product is faster: log-linear between the two that enclose 1."""
    faster = [part for part in PARTS if all(speedups[p] >= 1 for p in PARTS if p >= part)]
    if not faster:
        return f"below 1/{PARTS[-1]}"
    if faster[0] == PARTS[0]:
        return f"above 1/{PARTS[0]}"
    slow, fast = PARTS[PARTS.index(faster[0]) - 1], faster[0]
    low, high = np.log(speedups[slow]), np.log(speedups[fast])
    return f"{1 / np.exp(np.interp(0, [low, high], np.log([slow, fast]))):.3f}"


def page(rows: list[dict[str, Any]]) -> str:
    """docs/popsparse.md."""
    lines = [
        "# PopSparse's table on this CPU",
        "",
        "Written by `python -m benchmarks.popsparse`; do not edit.",
        "",
        f"Times faster than onnxruntime's dense product of the same type: m = k = {SIZE}, one thread, blocks at",
        "random places. In brackets what PopSparse (arXiv 2303.16999) published for static sparsity in FP16 on a Bow",
        "IPU against the IPU's dense product, read off a figure, where it is known. *Crossover* is the density below",
        "which sparse is faster, between two measured ones. These kernels do not know that there are blocks.",
        "",
        f"Measured on {machine().cpu}, {kernels.isa()} kernels.",
    ]
    for kind, block in sorted({(r["type"], r["block"]) for r in rows}):
        found = {(r["part"], r["rows"]): r["speedup"] for r in rows if (r["type"], r["block"]) == (kind, block)}
        lines += ["", f"## {kind}, block {block}", "", f"| density | {' | '.join(f'n = {n}' for n in ROWS)} |"]
        lines.append("|--" + "|--:" * len(ROWS) + "|")
        for part in PARTS:
            ipu = IPU_FP16.get((block, part))
            cells = [f"{found[part, n]:.2f}" + (f" ({ipu[i]:.2f})" if ipu else "") for i, n in enumerate(ROWS)]
            lines.append(f"| 1/{part} | {' | '.join(cells)} |")
        ends = [crossover({part: found[part, n] for part in PARTS}) for n in ROWS]
        lines.append(f"| crossover | {' | '.join(ends)} |")
    lines += ["", "## Against the paper's table", "", "Density 1/16, FP32, each at its best n.", ""]
    lines += ["| block | IPU, static | here |", "|--|--:|--:|"]
    for (block, part), ipu_speedup in IPU_FP32.items():
        mine = [r["speedup"] for r in rows if (r["type"], r["block"], r["part"]) == ("fp32", block, part)]
        lines.append(f"| {block} | {ipu_speedup:.1f} | {f'{max(mine):.1f}' if mine else ''} |")
    return "\n".join([*lines, ""])


def main() -> int:
    """Measure what is asked for, and write the page of all that is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [f"{kind} {block}" for kind in TYPES for block in BLOCKS]
    parser.add_argument("--only", action="append", choices=names, help="type and block (default: all of them)")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # onnxruntime's quantiser talks on the root logger
    KEPT.parent.mkdir(exist_ok=True)
    kept: dict[str, list[dict[str, Any]]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for name in options.only or names:
        kind, block = name.split()
        kept[name] = list(measure(kind, int(block), options.rounds))
        KEPT.write_text(json.dumps(kept))
    text = page([row for rows in kept.values() for row in rows])
    print(text)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
