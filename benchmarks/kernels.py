"""Our operators in an onnxruntime session against onnxruntime's own, on the layers of shapes/*.txt.

    python -m benchmarks.kernels [--only TEXT] [--rounds N] [--threads N]

One process, all contenders of a layer in turn (A B C ... A B C ...), five runs a turn, medians. Inputs and outputs are
onnxruntime's own, bound once: what passes between Python and a session, some 2.4 us (Zen 5), passes once a model and
not once a layer, so no contender is charged for it.
With several threads everything is measured with one as well. Prints a table and writes benchmarks/results/kernels.json;
`python -m benchmarks.plot` draws it.

    ms              of the runs of a turn after its first: weights are in the caches as far as these reach
    cold            of the first run of a turn: weights, and the last result, come from memory
    x fp32, x int8  times faster than onnxruntime's own
    Gop/s           operations of the dense product a second
    of peak         operations that zeros leave, over what the kernel's instructions do on registers of a core (peak.c)
    GB/s            packed weights read a second, where there is one row: memory is the limit then
    packed          GB of dense float32 weights packed a second of processor time, when a session is created
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from ml_dtypes import bfloat16
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from benchmarks.peak import chosen, peak
from benchmarks.turns import Times, milliseconds, take_turns
from sparsify import kernels, ops, report, runtime
from sparsify.cli import talk
from sparsify.cost import dense_model, operator_model
from sparsify.formats import encode
from sparsify.kernels.native import Product
from sparsify.machine import machine
from sparsify.ops import Activation, Operator, Values
from sparsify.patterns import Pattern

SHAPES = Path(__file__).parent / "shapes"
RESULTS = Path(__file__).parent / "results"
BALANCED = ("32:64", "16:64", "8:64", "4:64")
UNSTRUCTURED = (0.7, 0.8, 0.9, 0.95)
FP32, INT8 = "onnxruntime fp32", "onnxruntime dynamic int8"


@dataclass(frozen=True)
class Layer:
    """A line of a shapes file."""

    model: str
    name: str
    k: int
    n: int
    rows: int

    @property
    def operations(self) -> float:
        """Of the dense product: a multiplication and an addition a weight and row."""
        return 2.0 * self.k * self.n * self.rows


@dataclass(frozen=True)
class Contender:
    """A one-layer model, and the share of weights that it multiplies by; of ours how its weights are packed."""

    name: str
    model: Any
    density: float = 1.0
    native: bool = False
    peak_gops: float | None = None
    packed_bytes: int = 0
    pack_s: float = 0.0


def main() -> int:
    """Measure every layer, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="layers whose `K x N x M` holds this text, such as 768x3072x128")
    parser.add_argument("--rounds", type=int, default=30, help="timed runs of each contender (default: 30)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # onnxruntime's quantisers talk on the root logger
    if not kernels.register(runtime_options()):
        sys.exit("error: no native kernels for this CPU: there is nothing to measure")

    found = []
    for layer in layers():
        if options.only not in f"{layer.k}x{layer.n}x{layer.rows}":
            continue
        rows = measure(layer, options.rounds, options.threads)
        found.append({**vars(layer), "contenders": rows})
        talk.show_table(table(layer, rows, options.threads))
    write(found, options.threads)
    return 0


def runtime_options() -> Any:
    import onnxruntime

    return onnxruntime.SessionOptions()


def layers() -> Iterator[Layer]:
    """All layers of all shapes files."""
    for file in sorted(SHAPES.glob("*.txt")):
        for line in file.read_text().splitlines():
            if line.strip() and not line.startswith("#"):
                model, name, k, n, rows = line.split()
                yield Layer(model, name, int(k), int(n), int(rows))


def measure(layer: Layer, rounds: int, threads: int) -> list[dict[str, Any]]:
    """One row a contender, in the order in which they ran."""
    x = np.random.default_rng(0).standard_normal((layer.rows, layer.k)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        found = list(contenders(layer, Path(folder)))
        sessions = {
            c.name + key: runtime.session(c.model, threads=count, native=c.native)
            for key, count in {"": 1, _threads(threads): threads}.items()
            for c in found
        }
    timers = {name: partial(milliseconds, bound(session, x)) for name, session in sessions.items()}
    times = take_turns(timers, rounds)
    return [_row(layer, c, times, threads) for c in found]


def bound(session: runtime.Session, x: npt.NDArray[np.float32]) -> Callable[[], None]:
    """A run of `session` from X [M, K] to Y [M, N], both where onnxruntime has them."""
    import onnxruntime

    (y,) = session.get_outputs()
    binding = session.io_binding()
    binding.bind_ortvalue_input("X", onnxruntime.OrtValue.ortvalue_from_numpy(x))
    binding.bind_output(y.name)
    session.run_with_iobinding(binding)
    binding.bind_ortvalue_output(y.name, binding.get_outputs()[0])  # what the first run allocated
    return partial(session.run_with_iobinding, binding)


def _threads(threads: int) -> str:
    return f", {threads} threads" if threads > 1 else ""


def _row(layer: Layer, contender: Contender, times: dict[str, Times], threads: int) -> dict[str, Any]:
    key = _threads(threads)
    timing = runtime.Timing.of(times[contender.name + key].warm)
    ms = timing.median_ms
    nonzero_gops = layer.operations * contender.density / ms / 1e6
    dense_bytes = 4 * layer.k * layer.n
    return {
        "name": contender.name,
        "density": contender.density,
        "ms": ms,
        "p25_ms": timing.p25_ms,
        "p75_ms": timing.p75_ms,
        "cold_ms": median(times[contender.name + key].cold),
        "over_fp32": median(times[FP32 + key].warm) / ms,
        "over_int8": median(times[INT8 + key].warm) / ms,
        "over_one_thread": median(times[contender.name].warm) / ms,
        "dense_gops": layer.operations / ms / 1e6,
        "nonzero_gops": nonzero_gops,
        "of_peak": nonzero_gops / (contender.peak_gops * threads) if contender.peak_gops else None,
        "packed_bytes": contender.packed_bytes,
        "gbps": contender.packed_bytes / ms / 1e6 if layer.rows == 1 and contender.packed_bytes else None,
        "pack_gbps": dense_bytes / contender.pack_s / 1e9 if contender.pack_s else None,
    }


def contenders(layer: Layer, folder: Path) -> Iterator[Contender]:
    """Everything that is timed on `layer`."""
    weight = np.random.default_rng(1).standard_normal((layer.k, layer.n)).astype(np.float32) * np.float32(0.02)
    zero = np.zeros(layer.n, np.float32)
    dense = dense_model(weight, zero, Activation.NONE)
    path = folder / "dense.onnx"
    ir.save(dense, path)
    yield Contender(FP32, dense)
    quantize_dynamic(path, folder / "int8.onnx", weight_type=QuantType.QInt8, per_channel=True)
    yield Contender(INT8, (folder / "int8.onnx").read_bytes())
    for bits in (4, 8):
        quantizer = MatMulNBitsQuantizer(str(path), bits=bits, block_size=32, is_symmetric=True, accuracy_level=4)
        quantizer.process()
        yield Contender(f"onnxruntime MatMulNBits {bits}", quantizer.model.model.SerializeToString())

    yield sparse(weight, "ours int8 dense", Values.INT8)
    yield sparse(weight, "ours bf16 dense", Values.BF16)
    for text in BALANCED:
        balanced = np.where(Pattern.parse(text).project(np.abs(weight)), weight, 0)
        yield sparse(balanced, f"ours int8 {text}", Values.INT8)
        yield sparse(balanced, f"ours bf16 {text}", Values.BF16)
    for sparsity in UNSTRUCTURED:
        pruned = np.where(Pattern().project(np.abs(weight), sparsity), weight, 0)
        yield sparse(pruned, f"ours int8 unstructured {sparsity:.0%}", Values.INT8)
        yield sparse(pruned, f"ours bf16 unstructured {sparsity:.0%}", Values.BF16)
        yield sparse(pruned, f"ours fp32 unstructured {sparsity:.0%}", Values.FP32)


def sparse(weight: npt.NDArray[np.float32], name: str, kind: Values) -> Contender:
    """Our operator on `weight`; in int8 what would round to zero is one step from it, so that all non-zeros stay."""
    values: npt.NDArray[Any] = weight.astype(bfloat16) if kind is Values.BF16 else weight
    if kind is Values.INT8:
        steps = np.rint(np.abs(weight) * (127 / np.abs(weight).max(axis=0)))
        values = (np.sign(weight) * np.maximum(steps, 1)).astype(np.int8)
    encoded = encode(values)
    zero = np.zeros(weight.shape[1], np.float32)
    scale = np.full(weight.shape[1], 1e-3, np.float32) if kind is Values.INT8 else None
    operator = Operator(kind, encoded.encoding, Activation.NONE)
    model = operator_model(weight.shape[0], ops.inputs_of(encoded, zero, scale), operator)
    density = float(np.count_nonzero(weight)) / weight.size
    format_ = str(kind).lower() or "fp32"
    began = time.process_time()
    with Product(chosen(format_).name, encoded, zero, scale) as packed:
        seconds = time.process_time() - began
        size = packed.nbytes
    return Contender(name, model, density, True, peak(format_, dense=density == 1), size, seconds)


def table(layer: Layer, rows: list[dict[str, Any]], threads: int) -> report.Table:
    """What was measured on one layer."""
    cells = tuple(
        (
            row["name"],
            f"{row['ms']:.3f}",
            f"{row['cold_ms']:.3f}",
            f"{row['over_fp32']:.2f}",
            f"{row['over_int8']:.2f}",
            f"{row['dense_gops']:.0f}",
            _or_nothing(row["of_peak"], "{:.0%}"),
            _or_nothing(row["gbps"], "{:.1f}"),
            _or_nothing(row["pack_gbps"], "{:.2f}"),
            _or_nothing(row["over_one_thread"] if threads > 1 else None, "{:.2f}"),
        )
        for row in rows
    )
    title = f"{layer.model} {layer.name}: {layer.k} x {layer.n}, {layer.rows} rows, threads: {threads}"
    columns = ("", ">ms", ">cold", ">x fp32", ">x int8", ">Gop/s", ">of peak", ">GB/s", ">packed", ">x 1 thread")
    return report.Table(title, columns, cells)


def _or_nothing(number: float | None, form: str) -> str:
    return "" if number is None else form.format(number)


def write(found: list[dict[str, Any]], threads: int) -> None:
    """Everything, for the plot and for comparing runs."""
    RESULTS.mkdir(exist_ok=True)
    facts = {"cpu": machine().cpu, "isa": kernels.isa(), "threads": threads, "layers": found}
    (RESULTS / "kernels.json").write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
