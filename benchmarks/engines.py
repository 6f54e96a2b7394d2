"""One sparse layer in other engines: DeepSparse, OpenVINO, onnxruntime, each in its own environment, and ours.

    python -m benchmarks.engines [--rounds N] [--only TEXT]

768x3072, one thread, all engines in turn, five runs a turn of which the first does not count, medians. fp32:
unstructured zeros. int8: zeros in blocks of 4 inputs, which is the pattern that DeepSparse's quantised kernels skip;
activations are uint8 with one scale that is given to the others, while onnxruntime's dynamic int8 and ours find theirs
at run time (ours one a row). The times of DeepSparse and OpenVINO are taken in their processes around the engine's own
call from Python, ours and onnxruntime's around theirs.
Where an engine can write its output to memory that is there already it does; DeepSparse hands out new memory each time.
Writes docs/engines.md.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from benchmarks.peer import environment
from benchmarks.turns import Turns, milliseconds, take_turns
from sparsify import kernels, ops, runtime
from sparsify.cost import operator_model
from sparsify.formats import encode
from sparsify.machine import machine
from sparsify.ops import Activation, Operator, Values
from sparsify.patterns import Pattern

K, N = 768, 3072
ROWS, SPARSITIES = (1, 16, 128), (0.5, 0.7, 0.8, 0.9, 0.95)
PINS = {
    "deepsparse": ("deepsparse==1.8.0", "onnx<1.15", "numpy<2"),  # the last that works; Python 3.8 to 3.11
    "openvino": ("openvino==2026.4.0", "numpy"),
}
# Of the largest output, which is some 4.5 standard deviations of all. int8: steps of 8.5 / 255 for normal activations
# make errors of .0096 of that deviation, of which 6 are .013 of the largest output; fp32: 768 roundings of 6e-8.
_TOLERANCES = {"fp32": 4.6e-5, "int8": 0.013}
RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "engines.md"
OURS, ORT = "ours", "onnxruntime"

Array = npt.NDArray[Any]


def main() -> int:
    """Measure every cell, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="turns of each engine (default: 30)")
    parser.add_argument("--only", default="", help="cells whose `kind rows sparsity` holds this text")
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # onnxruntime's quantiser talks on the root logger
    found: dict[tuple[str, int, float], dict[str, float]] = {}
    for kind in ("fp32", "int8"):
        for rows in ROWS:
            for sparsity in SPARSITIES:
                if options.only in f"{kind} {rows} {sparsity}":
                    found[kind, rows, sparsity] = measure(kind, rows, sparsity, options.rounds)
                    print(kind, rows, sparsity, found[kind, rows, sparsity], flush=True)
    if not options.only:
        PAGE.write_text(page(found, options.rounds))
    return 0


def measure(kind: str, rows: int, sparsity: float, rounds: int) -> dict[str, float]:
    """Median milliseconds by engine."""
    random = np.random.default_rng(0)
    x = random.standard_normal((rows, K)).astype(np.float32)
    weight = random.standard_normal((K, N)).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "x.npy", x)
        if kind == "fp32":
            pruned = np.where(Pattern().project(np.abs(weight), sparsity), weight, 0)
            np.save(folder / "answer.npy", x.astype(np.float64) @ pruned)
            onnx.save(_dense(pruned, rows), folder / "model.onnx")
            ours, theirs = _ours(pruned, None), runtime.session(folder / "model.onnx", threads=1, native=False)
        else:
            integers, scale = _integers(weight, sparsity)
            np.save(folder / "answer.npy", x.astype(np.float64) @ (integers * scale))
            onnx.save(_quantized(integers, scale, x), folder / "model.onnx")
            onnx.save(_dense(integers * scale, rows), folder / "dense.onnx")
            quantize_dynamic(
                folder / "dense.onnx", folder / "dynamic.onnx", weight_type=QuantType.QInt8, per_channel=True
            )
            ours = _ours(integers, np.full(N, scale, np.float32))
            theirs = runtime.session(folder / "dynamic.onnx", threads=1, native=False)
        peers = {
            peer: Turns(
                environment(RESULTS / peer, pins), "engines_run.py", peer, folder / "model.onnx", folder / "x.npy"
            )
            for peer, pins in PINS.items()
        }
        timers = {OURS: _timer(ours, x), ORT: _timer(theirs, x), **{peer: turns.time for peer, turns in peers.items()}}
        took = take_turns(timers, rounds)
    for peer, turns in peers.items():
        if turns.difference is None or turns.difference > _TOLERANCES[kind]:
            print(f"warning: {peer} is off by {turns.difference}: {kind}, {rows} rows, {sparsity:.0%}", file=sys.stderr)
    return {engine: median(times.warm) for engine, times in took.items()}


def _timer(session: Any, x: Array) -> Callable[[], float]:
    binding = session.io_binding()
    binding.bind_cpu_input(session.get_inputs()[0].name, x)
    y = onnxruntime.OrtValue.ortvalue_from_numpy(np.empty((len(x), N), np.float32))
    binding.bind_ortvalue_output(session.get_outputs()[0].name, y)
    return partial(milliseconds, partial(session.run_with_iobinding, binding))


def _integers(weight: Array, sparsity: float) -> tuple[Array, np.float32]:
    """int8 [K, N], blocks of 4 inputs of the least magnitude 0, and one scale."""
    blocks = np.abs(weight).reshape(K // 4, 4, N).sum(axis=1)
    kept = blocks > np.quantile(blocks, sparsity)
    pruned = weight * np.repeat(kept, 4, axis=0)
    scale = np.float32(np.abs(pruned).max() / 127)
    return np.rint(pruned / scale).astype(np.int8), scale


def _ours(weight: Array, scale: Array | None) -> Any:
    encoded = encode(weight)
    operator = Operator(Values.FP32 if scale is None else Values.INT8, encoded.encoding, Activation.NONE)
    inputs = ops.inputs_of(encoded, np.zeros(N, np.float32), scale)
    return runtime.session(operator_model(K, inputs, operator), threads=1)


def _dense(weight: Array, rows: int) -> onnx.ModelProto:
    return _model([helper.make_node("MatMul", ["X", "W"], ["Y"])], {"W": weight.astype(np.float32)}, rows)


def _quantized(weight: Array, scale: np.float32, x: Array) -> onnx.ModelProto:
    """X quantised and back, times W dequantised: how a model with quantised layers is exchanged."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step = np.float32((high - low) / 255)
    constants = {
        "W": weight,
        "W_scale": np.array(scale, np.float32),
        "W_zero": np.array(0, np.int8),
        "X_scale": np.array(step, np.float32),
        "X_zero": np.array(round(-low / float(step)), np.uint8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["X", "X_scale", "X_zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "X_scale", "X_zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["W", "W_scale", "W_zero"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["Y"]),
    ]
    return _model(nodes, constants, len(x))


def _model(nodes: list[onnx.NodeProto], constants: dict[str, Array], rows: int) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, size]) for name, size in (("X", K), ("Y", N)))
    graph = helper.make_graph(nodes, "layer", [x], [y], tensors)
    # The oldest of the engines takes no newer opset and version of the format.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


def page(found: dict[tuple[str, int, float], dict[str, float]], rounds: int) -> str:
    """docs/engines.md."""
    lines = [
        "# One sparse layer in other engines",
        "",
        "Written by `python -m benchmarks.engines`; do not edit.",
        "",
        f"{K}x{N}, one thread, milliseconds, medians of {rounds} turns of five runs, the first of which does not",
        "count. fp32: unstructured zeros, the same weights for all; int8: zeros in blocks of 4 inputs, the same",
        "integers for all. onnxruntime: fp32 and dynamic int8, per channel; DeepSparse 1.8.0 and OpenVINO are given",
        "the scale of the activations. *Ours is faster*: the time of the fastest of the others over ours.",
        "",
        f"Measured on {machine().cpu}, {kernels.isa()} kernels.",
        "",
    ]
    for kind in ("fp32", "int8"):
        lines += [
            "",
            f"## {kind}",
            "",
            "| rows | zeros | onnxruntime | OpenVINO | DeepSparse | ours | ours is faster |",
        ]
        lines.append("|--:|--:|--:|--:|--:|--:|--:|")
        for (_, rows, sparsity), ms in ((key, ms) for key, ms in found.items() if key[0] == kind):
            others = [ms[name] for name in (ORT, "openvino", "deepsparse")]
            cells = " | ".join(f"{t:.3f}" for t in (*others, ms[OURS]))
            lines.append(f"| {rows} | {sparsity:.0%} | {cells} | {min(others) / ms[OURS]:.2f}x |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
