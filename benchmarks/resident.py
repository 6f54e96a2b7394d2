"""Resident memory of a session over the bytes of its packed weights.

    python -m benchmarks.resident

Models of LAYERS layers 4096x4096, once with all weights inside the file, which onnxruntime then keeps beside what is
packed of them, and once with weights in external data, which it maps: those the kernels let go. A process each.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from benchmarks.peak import chosen
from sparsify import cost, ops, report, runtime
from sparsify.cli import talk
from sparsify.formats import encode
from sparsify.kernels.native import Product
from sparsify.ops import Activation, Operator, Values
from sparsify.patterns import Pattern

SIZE, LAYERS = 4096, 6
FORMS = (
    ("int8 dense", Values.INT8, None),
    ("int8 32:64", Values.INT8, "32:64"),
    ("int8 8:64", Values.INT8, "8:64"),
    ("fp32 16:64", Values.FP32, "16:64"),
)


def main() -> int:
    """Measure and print; or, given a file, be the process that is measured."""
    if len(sys.argv) > 1:
        print(grown(Path(sys.argv[1])))
        return 0
    rows = []
    for name, kind, pattern in FORMS:
        with tempfile.TemporaryDirectory() as folder:
            model, packed, encoded = made(kind, pattern)
            inside, outside = Path(folder) / "inside.onnx", Path(folder) / "outside.onnx"
            ir.save(model, inside)
            ir.save(model, outside, external_data="outside.data")
            over = [f"{_measured(file) / packed:.2f}x" for file in (inside, outside)]
        rows.append((name, f"{packed / 1e6:.0f} MB", f"{encoded / 1e6:.0f} MB", *over))
    columns = ("", ">packed", ">in the file", ">resident, inside", ">external")
    talk.show_table(report.Table(f"{LAYERS} layers {SIZE}x{SIZE}", columns, tuple(rows)))
    return 0


def made(kind: Values, pattern: str | None) -> tuple[ir.Model, int, int]:
    """A chain of layers, bytes of its packed weights and of its constants."""
    x = ir.val("X", ir.DataType.FLOAT, ["M", SIZE])
    tape, constants, packed, size, y = ir.tape.Tape(), [], 0, 0, x
    for seed in range(LAYERS):
        arrays, operator, layer = _layer(kind, pattern, seed)
        packed += layer
        size += sum(a.nbytes for a in arrays.values())
        values = [ir.Value(name=f"{n}_{seed}", const_value=ir.tensor(a, name=f"{n}_{seed}")) for n, a in arrays.items()]
        constants += values
        y = tape.op(operator.name, [y, *values], domain=ops.DOMAIN)
    y.name, y.type = "Y", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([x], [y], nodes=tape.nodes, initializers=constants, opset_imports={"": 17}, name="layers")
    model = ir.Model(graph, ir_version=ops.MIN_IR_VERSION)
    ops.add_operator(model, operator)
    return model, packed, size


def _layer(kind: Values, pattern: str | None, seed: int) -> tuple[dict[str, npt.NDArray[Any]], Operator, int]:
    weight: npt.NDArray[Any] = np.random.default_rng(seed).standard_normal((SIZE, SIZE)).astype(np.float32)
    if pattern is not None:
        weight = np.where(Pattern.parse(pattern).project(np.abs(weight)), weight, 0)
    scale = None
    if kind is Values.INT8:
        steps = np.maximum(np.rint(np.abs(weight) * 25), 1)
        weight, scale = (np.sign(weight) * np.minimum(steps, 127)).astype(np.int8), np.full(SIZE, 0.04, np.float32)
    encoded, bias = encode(weight), np.zeros(SIZE, np.float32)
    with Product(chosen(str(kind).lower() or "fp32").name, encoded, bias, scale) as product:
        size = product.nbytes
    return dict(ops.inputs_of(encoded, bias, scale)), Operator(kind, encoded.encoding, Activation.NONE), size


def _measured(file: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.resident", file], check=True, capture_output=True, text=True
    )
    return int(done.stdout.splitlines()[-1])


def grown(file: Path) -> int:
    """Bytes by which this process grows with a session of `file` and a run, after a session of a small model."""
    runtime.session(cost.dense_model(np.eye(4, dtype=np.float32), np.zeros(4, np.float32), Activation.NONE), threads=1)
    before = _resident()
    session = runtime.session(file, threads=1)
    session.run(None, {"X": np.zeros((1, SIZE), np.float32)})
    return _resident() - before


def _resident() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())
