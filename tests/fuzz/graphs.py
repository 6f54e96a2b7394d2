"""Random graphs of linear layers under transposes, reshapes, branches and shared weights, and what they compute.

A `Graph` is a list of steps. From it come an ONNX model and `evaluate`: its outputs in float64 with a bound on what any
right evaluation may be off by, carried through step by step:

    linear   e' = |W| e + what the layer's arithmetic adds, for inputs as large as |x| + e   (see `_layer_error`)
    Add      e' = e1 + e2 + u (|a| + |b|)
    Relu, Neg, Transpose, Reshape   e' = e: their slope is at most 1, and they round nothing
    Tanh     e' = e + 8 u: its slope is at most 1, runtimes are within 8 u (tests/references.py)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.helper
import onnxruntime
from hypothesis import strategies as st
from onnx.numpy_helper import from_array
from packaging.version import Version

from tests.references import U

F64 = npt.NDArray[np.float64]
INPUT = "x"
# onnxruntime up to 1.23 at least, and not 1.32, takes a Transpose that leaves all axes where they are, beside a Gemm,
# for one that swaps them.
_IDENTITIES = Version(onnxruntime.__version__) >= Version("1.32")
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 33)


@dataclass(frozen=True)
class Step:
    """One node, and those that only bring its weight: `kind` with `options`, from the values `reads` to `makes`."""

    kind: str
    reads: tuple[str, ...]
    makes: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Graph:
    """Steps over one input of `shape`; `arrays` are weights and biases as they are stored."""

    shape: tuple[int, ...]
    steps: list[Step] = field(default_factory=list)
    arrays: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    @property
    def outputs(self) -> list[str]:
        """Values that nobody reads."""
        read = {name for step in self.steps for name in step.reads}
        return [step.makes for step in self.steps if step.makes not in read]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = tuple(draw(st.lists(st.sampled_from(_SIZES), min_size=2, max_size=3)))
    graph = Graph(shape)
    shapes = {INPUT: shape}
    for number in range(draw(st.integers(1, 8))):
        # Late values are likelier, so that graphs get deep; `x` again makes branches.
        source = draw(st.sampled_from([*shapes, *list(shapes)[-2:]]))
        kind = draw(st.sampled_from(["linear"] * 4 + ["Add", "bias", "Relu", "Tanh", "Neg", "Transpose", "Reshape"]))
        made, options, reads = f"v{number}", {}, (source,)
        size = shapes[source]
        if kind == "linear":
            options, size = _linear(draw, rng, graph, size, number)
        elif kind == "Add":
            reads = (source, draw(st.sampled_from([n for n, s in shapes.items() if s == size])))
        elif kind == "bias":
            options = {"array": f"b{number}"}
            graph.arrays[f"b{number}"] = rng.standard_normal(size[-1]).astype(np.float32)
        elif kind == "Transpose":
            perm = draw(st.permutations(range(len(size))).filter(lambda p: _IDENTITIES or p != sorted(p)))
            options, size = {"perm": perm}, tuple(size[axis] for axis in perm)
        elif kind == "Reshape":
            size = _other_shape(draw, size)
            options = {"array": f"s{number}", "shape": size}
        graph.steps.append(Step(kind, reads, made, options))
        shapes[made] = size
    return graph


def _linear(
    draw: st.DrawFn, rng: np.random.Generator, graph: Graph, size: tuple[int, ...], number: int
) -> tuple[dict[str, Any], tuple[int, ...]]:
    """A MatMul or Gemm with a weight of its own or one that is there, and the shape of what it gives."""
    gemm = len(size) == 2 and draw(st.booleans())
    trans_x = gemm and draw(st.booleans())
    k = size[0] if trans_x else size[-1]
    known = [n for n, a in graph.arrays.items() if a.ndim == 2 and k in a.shape]
    if known and draw(st.booleans()):
        name = draw(st.sampled_from(known))
        turned = graph.arrays[name].shape[0] != k or (graph.arrays[name].shape[1] == k and draw(st.booleans()))
    else:
        name, turned = f"w{number}", draw(st.booleans())
        n = draw(st.sampled_from(_SIZES))
        mask = rng.random((n, k) if turned else (k, n)) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
        mask[:, rng.random(mask.shape[1]) < 0.2] = False
        graph.arrays[name] = (rng.standard_normal(mask.shape) * mask).astype(np.float32)
    stored = graph.arrays[name].shape
    n = stored[0] if turned else stored[1]
    options: dict[str, Any] = {
        "array": name,
        "turned": turned,
        "gemm": gemm,
        "trans_x": trans_x,
        "trans_w": gemm and draw(st.booleans()),
        "alpha": draw(st.sampled_from([1.0, 0.5, -2.0])) if gemm else 1.0,
        "beta": draw(st.sampled_from([1.0, 0.0, 0.25])) if gemm else 1.0,
        "bias": None,
        "through": draw(st.lists(st.sampled_from(["Identity", "Turn"]), max_size=2)),
    }
    if gemm and draw(st.booleans()):
        options["bias"] = f"c{number}"
        graph.arrays[f"c{number}"] = rng.standard_normal(draw(st.sampled_from([(n,), (1, n), (1,)]))).astype(np.float32)
    return options, (size[1] if trans_x else size[0], *size[1:-1], n) if len(size) > 1 else (n,)


def _other_shape(draw: st.DrawFn, size: tuple[int, ...]) -> tuple[int, ...]:
    """Another shape of rank 2 or 3 with as many elements."""
    if len(size) == 3:
        return draw(st.sampled_from([(size[0] * size[1], size[2]), (size[0], size[1] * size[2])]))
    divisors = [d for d in range(1, size[0] + 1) if size[0] % d == 0]
    first = draw(st.sampled_from(divisors))
    return (first, size[0] // first, size[1])


# The model ---------------------------------------------------------------------------------------------------------


def to_onnx(graph: Graph, constants: bool) -> onnx.ModelProto:
    """The ONNX model; `constants`: weights in Constant nodes instead of initializers."""
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []
    for name, array in graph.arrays.items():
        if constants:
            nodes.append(onnx.helper.make_node("Constant", [], [name], value=from_array(array, name)))
        else:
            initializers.append(from_array(array, name))
    for step in graph.steps:
        nodes += _nodes(step, initializers)
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in graph.outputs]
    for output in outputs:
        output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    given = onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, list(graph.shape))
    made = onnx.helper.make_graph(nodes, "random", [given], outputs, initializers)
    return onnx.helper.make_model(made, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])


def _nodes(step: Step, initializers: list[onnx.TensorProto]) -> list[onnx.NodeProto]:
    o = step.options
    if step.kind == "Reshape":
        initializers.append(from_array(np.array(o["shape"], np.int64), o["array"]))
        return [onnx.helper.make_node("Reshape", [*step.reads, o["array"]], [step.makes])]
    if step.kind == "bias":
        return [onnx.helper.make_node("Add", [*step.reads, o["array"]], [step.makes])]
    if step.kind == "Transpose":
        return [onnx.helper.make_node("Transpose", list(step.reads), [step.makes], perm=o["perm"])]
    if step.kind != "linear":
        return [onnx.helper.make_node(step.kind, list(step.reads), [step.makes])]
    nodes, weight = [], o["array"]
    turns = [*o["through"]]
    if (turns.count("Turn") + o["trans_w"] + o["turned"]) % 2:
        turns.append("Turn")
    for number, turn in enumerate(turns):
        kind, name = ("Transpose" if turn == "Turn" else "Identity"), f"{step.makes}_{o['array']}_{number}"
        nodes.append(onnx.helper.make_node(kind, [weight], [name]))
        weight = name
    if not o["gemm"]:
        return [*nodes, onnx.helper.make_node("MatMul", [*step.reads, weight], [step.makes])]
    reads = [*step.reads, weight, *([o["bias"]] if o["bias"] else [])]
    attributes = {"alpha": o["alpha"], "beta": o["beta"], "transA": int(o["trans_x"]), "transB": int(o["trans_w"])}
    return [*nodes, onnx.helper.make_node("Gemm", reads, [step.makes], **attributes)]


# What it computes --------------------------------------------------------------------------------------------------


def evaluate(
    graph: Graph, x: npt.NDArray[np.float32], arrays: dict[str, npt.NDArray[np.float32]], arithmetic: str
) -> dict[str, tuple[F64, F64]]:
    """Outputs in float64 with `arrays` as weights, and a bound on the error of `arithmetic` (see `_layer_error`)."""
    known = {INPUT: (x.astype(np.float64), np.zeros(x.shape))}
    for step in graph.steps:
        known[step.makes] = _apply(step, [known[name] for name in step.reads], arrays, arithmetic)
    return {name: known[name] for name in graph.outputs}


def _apply(
    step: Step, operands: list[tuple[F64, F64]], arrays: dict[str, npt.NDArray[np.float32]], arithmetic: str
) -> tuple[F64, F64]:
    (a, e), o = operands[0], step.options
    if step.kind == "Transpose":
        return a.transpose(o["perm"]), e.transpose(o["perm"])
    if step.kind == "Reshape":
        return a.reshape(o["shape"]), e.reshape(o["shape"])
    if step.kind in ("Add", "bias"):
        b, f = operands[1] if step.kind == "Add" else (arrays[o["array"]].astype(np.float64), np.float64(0))
        # Twice: a bias may be folded into another before it is added.
        return a + b, e + f + 2 * U * (np.abs(a) + np.abs(b) + e + f)
    if step.kind == "Relu":
        return np.maximum(a, 0), e
    if step.kind == "Tanh":
        return np.tanh(a), e + 8 * U
    if step.kind == "Neg":
        return -a, e
    if o["trans_x"]:
        a, e = a.T, e.T
    stored = arrays[o["array"]].astype(np.float64)
    w = o["alpha"] * (stored.T if o["turned"] else stored)
    c = np.zeros(1) if o["bias"] is None else o["beta"] * arrays[o["bias"]].astype(np.float64)
    return a @ w + c, e @ np.abs(w) + _layer_error(np.abs(a) + e, a, e, w, np.abs(c), arithmetic)


def _layer_error(large: F64, x: F64, e: F64, w: F64, c: F64, arithmetic: str) -> F64:
    """What the arithmetic of one layer adds to the error; `large` is |x| + e.

    Rounding of K products and sums, alpha, beta, C and two more terms that passes may have moved:
    gamma_(K + 6) (|x| |w| + |C|), as in tests/references.py; 1e-30 stands for what is too small for fp32.
    """
    n = w.shape[0] + 6
    gamma = n * U / (1 - n * U)
    heavy = np.abs(w)
    fp32 = gamma * (large @ heavy + c) + 1e-30
    if arithmetic == "fp32":
        return fp32
    if arithmetic == "bf16":  # passes/sparse_bf16.py
        return fp32 + (2.0**-7 + 2.0**-16) * (large @ heavy)
    levels, whole = {"int8": (127, False), "stock": (63, True)}[arithmetic]
    axis = None if whole else -1
    span = np.maximum((x + e).max(axis, keepdims=True), 0) - np.minimum((x - e).min(axis, keepdims=True), 0)
    step, scale = np.maximum(span, 1e-30) / 255, heavy.max(0) / levels
    # passes/sparse_int8.py: X off by half a step and as much again for the rounded zero point, W by half of its scale.
    rounded = large.sum(-1, keepdims=True) * scale / 2 + step * heavy.sum(0) + w.shape[0] * scale * step / 2
    # The sum is exact; converting it, both scales and their product round it as often as fp32 would.
    return fp32 + rounded * (1 + 8 * U) + 8 * U * ((large + step) @ (heavy + scale))
