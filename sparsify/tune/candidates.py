"""What a linear layer could become, and how long each form takes here: measured, one class of equal layers at a time.

Layers are of one class when shape, rows, bias, activation and the share of non-zeros are the same. A class is measured
on the weight of its first layer, pruned by magnitude: times depend on how many non-zeros stand in a pattern, not on
which.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify import cost, graph, kernels, ops
from sparsify.convolutions import Window, window_of
from sparsify.convolutions import rows as seen_by
from sparsify.errors import InputError
from sparsify.graph import Linear
from sparsify.patterns import Pattern
from sparsify.rewrite import CHOICE, Choice
from sparsify.solvers import magnitude
from sparsify.tune.plan import BF16, EXACT, FUSE, INT8, LOWER, OURS, PRODUCTS, STOCK

BLOCK = 64
# Non-zeros of 64: 75, 62.5, 50, 37.5, 25, 18.75, 12.5 and 6.25 %.
KEPT = (48, 40, 32, 24, 16, 12, 8, 4)
_PROBED = ((32, 16), (32, 16, 8), (48, 32, 16, 8), KEPT)  # by effort: where drift is measured
_DENSE = 0.95  # share of non-zeros from which on zeros that a weight has already buy nothing


@dataclass(frozen=True)
class Kind:
    """What layers of one class have in common.

    Attributes:
        shape: (K, N).
        rows: that the layer sees.
        biased: whether a constant is added before the activation.
        activation: that follows.
        density: share of non-zeros of the weight as it came, to two digits.
        residual: whether another tensor of the same shape is added at the end.
        window: that of a convolution.
    """

    shape: tuple[int, int]
    rows: int
    biased: bool
    activation: ops.Activation
    density: float = 1.0
    residual: bool = False
    window: Window | None = None


@dataclass(frozen=True)
class Costs:
    """Milliseconds or bytes of a layer as it is, and of each choice for it."""

    left: float
    by_choice: dict[Choice, float]


def probed(effort: int) -> tuple[Pattern, ...]:
    """The patterns that drift is measured at, by rising sparsity."""
    return tuple(Pattern(n, BLOCK) for n in _PROBED[effort])


def patterns(effort: int) -> tuple[Pattern, ...]:
    """The patterns to choose from: those between the first and the last that drift is measured at."""
    most, *_, least = _PROBED[effort]
    return tuple(Pattern(n, BLOCK) for n in KEPT if least <= n <= most)


def choices(target: str, effort: int) -> tuple[Choice, ...]:
    """What is tried besides leaving a layer as it is. bfloat16 only where the CPU multiplies it."""
    stock = tuple(map(Choice, STOCK))
    if target == "stock":
        return stock
    ours = [f for f in OURS if f != BF16 or "bf16" in (kernels.isa() or "")]
    pruned = [Choice(format_, p) for p in patterns(effort) for format_ in ours]
    return *stock, *map(Choice, ours), *pruned


def kinds(model: ir.Model, layers: Sequence[Linear], rows: int | None) -> list[Kind]:
    """The class of each of `layers`; rows are those that were observed, else 128.

    What follows a layer is what `fuse-epilogue` makes of a copy of the model in which all layers are operators.
    """
    ends = _epilogues(model)
    found = []
    for layer in layers:
        activation, biased, residual = ends.get(layer.name, (ops.Activation.NONE, False, False))
        seen = rows or seen_by(layer.node, 128)
        weight = layer.matrix()
        density = round(float(np.count_nonzero(weight)) / max(weight.size, 1), 2)
        found.append(Kind(layer.shape, seen, biased, activation, density, residual, window_of(layer.node)))
    return found


def measure(
    layers: Sequence[Linear],
    found: Sequence[Kind],
    tried: Sequence[Choice],
    *,
    threads: int,
    progress: Callable[[int, int, str], None],
) -> dict[Kind, Costs]:
    """Times of every class in `found` [of each of `layers`], as `cost` keeps them."""
    first = _first(layers, found)
    times: dict[Kind, Costs] = {}
    for number, (kind, layer) in enumerate(first.items()):
        progress(number, len(first), f"time {kind.shape[0]}x{kind.shape[1]}, {kind.rows} rows")
        weight = layer.matrix()
        pairs = {}
        for choice in tried:
            # Without loss a dense weight has no use for a sparse form.
            if choice == Choice(EXACT) and kind.density > _DENSE:
                continue
            with contextlib.suppress(InputError):  # an onnxruntime that lacks the operator has no such candidate
                pairs[choice] = _cost(weight, kind, choice, threads)
        dense = float(np.median([pair.dense_ms for pair in pairs.values()]))
        # Dense and rewritten took turns: their ratio is what was measured best.
        times[kind] = Costs(dense, {choice: dense / pair.speedup for choice, pair in pairs.items()})
    return times


def weigh(layers: Sequence[Linear], found: Sequence[Kind], tried: Sequence[Choice]) -> dict[Kind, Costs]:
    """Bytes of every class in `found` [of each of `layers`]: the constants of the layer alone, as they are stored."""
    sizes: dict[Kind, Costs] = {}
    for kind, layer in _first(layers, found).items():
        weight = layer.matrix()
        bias = np.full(kind.shape[1], float(kind.biased), np.float32)
        forms = {choice: form(_pruned(weight, choice), bias, kind.activation, choice) for choice in tried}
        dense = layer.tensor.nbytes + (bias.nbytes if kind.biased else 0)
        sizes[kind] = Costs(dense, {choice: _bytes(form) for choice, form in forms.items()})
    return sizes


def _first(layers: Sequence[Linear], found: Sequence[Kind]) -> dict[Kind, Linear]:
    """The first layer of each class."""
    first: dict[Kind, Linear] = {}
    for kind, layer in zip(found, layers, strict=True):
        first.setdefault(kind, layer)
    return first


def _bytes(model: ir.Model) -> int:
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def _pruned(weight: npt.NDArray[np.float32], choice: Choice) -> npt.NDArray[np.float32]:
    return weight if choice.pattern is None else magnitude.prune(weight, choice.pattern)[1]


def _cost(weight: npt.NDArray[np.float32], kind: Kind, choice: Choice, threads: int) -> cost.Cost:
    matrix = _pruned(weight, choice)
    bias = np.full(kind.shape[1], float(kind.biased), np.float32)
    return cost.measure_form(
        matrix,
        bias,
        kind.activation,
        lambda: form(matrix, bias, kind.activation, choice, residual=kind.residual, window=kind.window),
        str(choice),
        rows=kind.rows,
        threads=threads,
        residual=kind.residual,
        window=kind.window,
    )


def form(
    matrix: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    activation: ops.Activation,
    choice: Choice,
    *,
    residual: bool = False,
    window: Window | None = None,
) -> ir.Model:
    """The one-layer model X [M, K] -> Y [M, N] as the pipeline would make it; W [K, N] is pruned already."""
    model = cost.dense_model(matrix, bias, activation, residual=residual, window=window)
    for one in (*PRODUCTS, LOWER[choice.format], *FUSE):
        one(model)
    return model


def _epilogues(model: ir.Model) -> dict[str, tuple[ops.Activation, bool, bool]]:
    """Activation, presence of a bias and of a residual, by the layer's name."""
    copy = model.clone()
    for node in copy.graph.all_nodes():
        node.meta.pop(CHOICE, None)
    for one in (LOWER[INT8], *FUSE):
        one(copy)
    return dict(_ends(copy))


def _ends(model: ir.Model) -> Iterator[tuple[str, tuple[ops.Activation, bool, bool]]]:
    for node in model.graph.all_nodes():
        if (operator := ops.operator_of(node)) is not None:
            bias = graph.constant(node.inputs[-2 if operator.residual else -1])
            biased = bias is not None and bool(np.any(bias))
            yield graph.node_name(node), (operator.activation, biased, operator.residual)
