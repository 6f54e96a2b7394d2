"""What a rewrite of one layer gains on this machine: measured, never modelled, and remembered.

The dense layer and its rewritten form are two one-layer models with the same bias and activation, timed in
turns in one process. A measurement is kept in the process and on disk, so that the same machine decides the
same way again; the folder is `$SPARSIFY_CACHE`, else `$XDG_CACHE_HOME/sparsify`, else `~/.cache/sparsify`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime

from sparsify import formats, kernels, ops, runtime
from sparsify.convolutions import Window
from sparsify.machine import machine

CACHE_VARIABLE = "SPARSIFY_CACHE"
_OPSET = 17
_RUNS = 30
_LIMIT_S = 3.0  # for one pair; a layer that takes longer shows its gain in a few runs
_FEW = 32  # columns of products of which only the quantising counts
_PATTERN_BLOCK, _PATTERN_COLUMNS, _PATTERN_STEP = 64, 16, 4  # see `padded`

_measured: dict[str, Cost] = {}


@dataclass(frozen=True)
class Cost:
    """Medians of one layer, milliseconds."""

    dense_ms: float
    rewritten_ms: float

    @property
    def speedup(self) -> float:
        """How many times faster the rewritten layer is."""
        return self.dense_ms / self.rewritten_ms


def measure(
    matrix: npt.NDArray[np.float32],
    arrays: Mapping[str, npt.NDArray[Any]],
    operator: ops.Operator,
    *,
    rows: int,
    threads: int,
    zeros: float = 0.0,
    window: Window | None = None,
) -> Cost:
    """Time the layer X W + bias, with activation, against `operator`.

    Args:
        matrix: W float32 [K, N].
        arrays: the operator's constant inputs, by name and in order (`ops.inputs_of`).
        operator: what would replace the layer.
        rows: of X.
        threads: of the session.
        zeros: share of the inputs that are 0 in all rows of X, for operators that skip them.
        window: that of a convolution; the operator stands between changes of layout then.
    """
    return measure_form(
        matrix,
        arrays["bias"],
        operator.activation,
        lambda: operator_model(matrix.shape[0], arrays, operator, window=window),
        operator.name,
        rows=rows,
        threads=threads,
        zeros=zeros,
        window=window,
    )


def measure_form(
    matrix: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    activation: ops.Activation,
    build: Callable[[], ir.Model],
    form: str,
    *,
    rows: int,
    threads: int,
    zeros: float = 0.0,
    residual: bool = False,
    window: Window | None = None,
) -> Cost:
    """Time the layer X W + bias, with activation, against another form of it.

    Args:
        matrix: W float32 [K, N].
        bias: float32 [N].
        activation: of the dense layer.
        build: makes the other form, X [M, K] -> Y [M, N]; called if the measurement is not known yet.
        form: the name that this form is remembered by.
        rows: of X.
        threads: of the session.
        zeros: share of the inputs that are 0 in all rows of X.
        residual: whether R [M, N] is added in the end, which both forms have as their second input.
        window: that of a convolution; X and Y are images then, as in `dense_model`.
    """
    facts = _facts(matrix, form, bool(np.any(bias)), rows, threads) | {"activation": str(activation)}
    if zeros:
        facts["zeros"] = round(zeros, 2)
    if residual:
        facts["residual"] = True
    if window is not None:
        facts["window"] = asdict(window)

    def measured() -> Cost:
        dense = dense_model(matrix, bias, activation, residual=residual, window=window)
        images = rows if window is None or not window.transposed else window.images(rows)
        return _time(dense, build(), images, threads, zeros)

    return _remembered(facts, measured)


def measure_sharing(k: int, readers: int, *, rows: int, threads: int) -> Cost:
    """Time int8 products of X [rows, K] that each quantise it (`dense_ms`) against such that share its quantised rows.

    They have few columns, and most weights are 0: what is left of their time hides nothing.
    """
    facts = {"sharing": readers, "k": k, "rows": rows, "threads": threads, **_machine()}

    def measured() -> Cost:
        apart, shared = (sharing_model(k, readers, shared=once) for once in (False, True))
        return _time(apart, shared, rows, threads, zeros=0)

    return _remembered(facts, measured)


def _remembered(facts: Mapping[str, Any], measure: Callable[[], Cost]) -> Cost:
    """What `measure` gave when it was first called with these facts."""
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    if key not in _measured:
        path = cache_folder() / "cost" / f"{key}.json"
        cost = _read(path)
        if cost is None:
            cost = measure()
            _write(path, facts, cost)
        _measured[key] = cost
    return _measured[key]


def cache_folder() -> Path:
    """Where measurements are kept."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sparsify"


def dense_model(
    matrix: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    activation: ops.Activation,
    *,
    residual: bool = False,
    window: Window | None = None,
) -> ir.Model:
    """X [M, K], and R [M, N] for a residual, -> Y [M, N] with standard operators; an all-zero bias is left out.

    With the window of a 1x1 convolution it is a Conv, X [1, K, 1, M] -> Y [1, N, 1, M]; with another a ConvTranspose
    of images of the window's size, as many as there are.
    """
    x = _input(matrix.shape[0], window)
    tape = ir.tape.Tape()
    if window is not None:
        one = bias[: len(bias) // window.points]
        initializers = [_initializer("W", window.kernel(matrix)), _initializer("bias", one)]
        steps = {"strides": [window.stride] * 2, "pads": list(window.pads)}
        y = tape.op(window.op_type, [x, *initializers], steps)
    else:
        initializers = [_initializer("W", matrix)]
        y = tape.op("MatMul", [x, *initializers])
        if np.any(bias):
            initializers.append(_initializer("bias", bias))
            y = tape.op("Add", [y, initializers[-1]])
    y = _activated(tape, y, activation, initializers)
    if not residual:
        return _model([x], y, initializers, tape.nodes)
    r = ir.val("R", ir.DataType.FLOAT, ["M", matrix.shape[1]])
    return _model([x, r], tape.op("Add", [y, r]), initializers, tape.nodes)


def operator_model(
    k: int, arrays: Mapping[str, npt.NDArray[Any]], operator: ops.Operator, *, window: Window | None = None
) -> ir.Model:
    """X [M, K] -> Y [M, N] with `operator` and its functions; with a `window` as in `dense_model`."""
    x = _input(k, window)
    initializers = [_initializer(name, array) for name, array in arrays.items()]

    def constant(name: str, array: npt.NDArray[Any]) -> ir.Value:
        initializers.append(_initializer(f"{name}{len(initializers)}", array))
        return initializers[-1]

    before = [] if window is None else window.to_rows(x, "before", constant)
    read = before[-1].outputs[0] if before else x
    tape = ir.tape.Tape()
    rows = tape.op_multi_out(ops.QUANTIZE, [read], num_outputs=3, domain=ops.DOMAIN) if operator.quantized else (read,)
    y = tape.op(operator.name, [*rows, *initializers[: len(arrays)]], domain=ops.DOMAIN)
    after = [] if window is None else window.to_image(y, len(arrays["bias"]) // window.points, "after", constant)
    model = _model([x], after[-1].outputs[0] if after else y, initializers, [*before, *tape.nodes, *after])
    ops.add_operator(model, operator)
    return model


def sharing_model(k: int, readers: int, *, shared: bool) -> ir.Model:
    """X [M, K] -> Y [M, N], the sum of `readers` int8 products; `shared`: X is quantised once."""
    rng = np.random.default_rng(0)
    x = ir.val("X", ir.DataType.FLOAT, ["M", k])
    tape = ir.tape.Tape()
    rows = tape.op_multi_out(ops.QUANTIZE, [x], num_outputs=3, domain=ops.DOMAIN) if shared else (x,)
    operator = ops.Operator(ops.Values.INT8, formats.Encoding.BITMASK, ops.Activation.NONE, quantized=shared)
    initializers: list[ir.Value] = []
    products: list[ir.Value] = []
    for number in range(readers):
        weight = np.where(rng.random((k, _FEW)) < 0.25, 1, 0).astype(np.int8)
        ones = np.ones(_FEW, np.float32)
        arrays = ops.inputs_of(formats.encode(weight, operator.encoding), ones, ones)
        constants = [_initializer(f"{name}{number}", array) for name, array in arrays.items()]
        initializers += constants
        products.append(tape.op(operator.name, [*rows, *constants], domain=ops.DOMAIN))
    model = _model([x], tape.op("Sum", products), initializers, tape.nodes)
    ops.add_operator(model, operator)
    return model


def _activated(tape: ir.tape.Tape, y: ir.Value, activation: ops.Activation, initializers: list[ir.Value]) -> ir.Value:
    """`activation` of `y` in the form that exporters write and onnxruntime fuses."""

    def number(name: str, value: float) -> ir.Value:
        initializers.append(_initializer(name, np.float32(value)))
        return initializers[-1]

    if activation is ops.Activation.NONE:
        return y
    if activation is ops.Activation.SILU:
        return tape.op("Mul", [y, tape.op("Sigmoid", [y])])
    if activation is ops.Activation.GELU:
        inner = tape.op("Erf", [tape.op("Div", [y, number("root", 2**0.5)])])
    elif activation is ops.Activation.GELU_TANH:
        cube = tape.op("Mul", [tape.op("Pow", [y, number("three", 3)]), number("cubic", 0.044715)])
        inner = tape.op("Tanh", [tape.op("Mul", [tape.op("Add", [y, cube]), number("factor", (2 / np.pi) ** 0.5)])])
    else:
        return tape.op(activation.value, [y])
    cumulative = tape.op("Add", [inner, number("one", 1)])
    return tape.op("Mul", [tape.op("Mul", [y, cumulative]), number("half", 0.5)])


def _model(inputs: list[ir.Value], y: ir.Value, initializers: list[ir.Value], nodes: Any) -> ir.Model:
    y.name, y.type = "Y", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(inputs, [y], nodes=nodes, initializers=initializers, opset_imports={"": _OPSET}, name="layer")
    return ir.Model(graph, ir_version=ops.MIN_IR_VERSION)


def _input(k: int, window: Window | None) -> ir.Value:
    shape: list[int | str] = ["M", k] if window is None else [1, k, 1, "M"]
    if window is not None and window.transposed:
        shape = ["B", k // window.taps**2, window.height, window.width]
    return ir.val("X", ir.DataType.FLOAT, shape)


def _initializer(name: str, array: npt.NDArray[Any] | np.float32) -> ir.Value:
    tensor = ir.tensor(np.asarray(array), name=name)
    return ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(np.shape(array)), const_value=tensor)


def _time(dense: ir.Model, rewritten: ir.Model, rows: int, threads: int, zeros: float) -> Cost:
    rng = np.random.default_rng(0)
    shapes = {str(v.name): [d if isinstance(d, int) else rows for d in v.shape or ()] for v in dense.graph.inputs}
    feed = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    k = feed["X"].shape[1]
    feed["X"][:, rng.permutation(k)[: round(zeros * k)]] = 0
    sessions = {name: runtime.session(m, threads=threads) for name, m in (("dense", dense), ("rewritten", rewritten))}
    timings = runtime.interleave(sessions, [feed], runs=_RUNS, limit_s=_LIMIT_S)
    return Cost(timings["dense"].median_ms, timings["rewritten"].median_ms)


def _facts(matrix: npt.NDArray[np.float32], form: str, biased: bool, rows: int, threads: int) -> dict[str, Any]:
    """All that a measurement depends on."""
    return {
        "shape": list(matrix.shape),
        "nnz": int(np.count_nonzero(matrix)),
        "padded": padded(matrix),
        "operator": form,
        "biased": biased,
        "rows": rows,
        "threads": threads,
        **_machine(),
    }


def padded(matrix: npt.NDArray[np.float32]) -> int:
    """Non-zeros that a kernel for blocks of 64 inputs and 16 columns runs through, padding included.

    It separates balanced from unstructured matrices of equal sparsity, which differ in speed by up to 1.5.
    """
    k, n = matrix.shape
    blocks, groups = -(-k // _PATTERN_BLOCK), -(-n // _PATTERN_COLUMNS)
    nonzero = np.zeros((blocks * _PATTERN_BLOCK, groups * _PATTERN_COLUMNS), bool)
    nonzero[:k, :n] = matrix != 0
    counts = nonzero.reshape(blocks, _PATTERN_BLOCK, groups, _PATTERN_COLUMNS).sum(axis=1)
    longest = counts.max(axis=2, initial=0)  # [blocks, groups]
    return int((-(-longest // _PATTERN_STEP) * _PATTERN_STEP * _PATTERN_COLUMNS).sum())


def _machine() -> dict[str, Any]:
    here = machine()
    return {
        "cpu": here.cpu,
        "cores": here.logical_cores,
        "isa_flags": list(here.isa_flags),  # virtual machines hide the model and show these
        "isa": kernels.isa(),
        "kernels": _library_digest(),
        "onnxruntime": onnxruntime.__version__,
        "sparsify": _version(),
    }


@cache
def _library_digest() -> str | None:
    """Of the kernels' file: while they are being developed the version stands still and the speed does not."""
    path = kernels.library_path()
    return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@cache
def _version() -> str:
    try:
        return metadata.version("sparsify-onnx")
    except metadata.PackageNotFoundError:  # run from a checkout
        return "uninstalled"


def _read(path: Path) -> Cost | None:
    """A kept measurement; None when there is none, or none that makes sense."""
    try:
        kept = json.loads(path.read_text())["cost"]
        cost = Cost(float(kept["dense_ms"]), float(kept["rewritten_ms"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return cost if 0 < cost.dense_ms < float("inf") and 0 < cost.rewritten_ms < float("inf") else None


def _write(path: Path, facts: Mapping[str, Any], cost: Cost) -> None:
    """Keep a measurement; a folder that cannot be written only costs the next run its time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
            json.dump({**facts, "cost": asdict(cost)}, file, indent=1)
        os.replace(file.name, path)
    except OSError:
        return
