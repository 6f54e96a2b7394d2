"""Move outliers of activations into weights, through the normalisation before them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from sparsify import runtime
from sparsify.errors import UsageError
from sparsify.graph import (
    FloatArray,
    Linear,
    add_initializer,
    constant,
    find_linear,
    graph_of,
    names,
    readers,
    set_input,
    set_weight,
    sole_user,
)
from sparsify.pruning import FEEDS, Feed, groups
from sparsify.rewrite import Change, Choice, Event, Pass, Refusal, chosen, layers
from sparsify.runtime.batches import each_batch

_NORMS = {"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"}
_LARGEST = 2.0**20  # no factor beyond it or its inverse: fp32 weights stay normal numbers
_Site = tuple[ir.Node, int]  # a node and the input where it reads a constant vector


@dataclass(frozen=True)
class Smooth(Pass):
    """Divides inputs that hold outliers by a factor and multiplies their weights by it: int8 rows lose less.

    What:
        The scale (and shift) of the normalisation that makes a layer's input is divided by s, input by input, and the
        rows of the weights of all layers that read it are multiplied by s. To be run before `sparse-int8`, not before
        or after `prune`: that loses more on inputs of like ranges, and rounds what it leaves to 8 bits.
    When it fires:
        A LayerNormalization, RMSNormalization or SimplifiedLayerNormalization, or the Mul, or Mul and Add, with
        constant vectors that exporters write for their last steps, makes the input, and calibration data reaches it.
    When it refuses:
        Something else makes the input or reads it too (in networks that normalise after the residual connection
        that is always so), the weight is no fp32 or used elsewhere as well, no data reached the layer, all factors
        are 1, or a search prunes a layer that reads the input, or leaves all of them.
    Mathematics:
        s_k = max |X_k|^strength / max_n |W_kn|^(1 - strength) over all W that read X, divided by its geometric mean and
        rounded to a power of two: X W = (X / s) (s W) then holds to the bit in fp32.
    Cost:
        A run of the model on the calibration data. None at run time.
    Drift:
        None by itself. What int8 makes of it is in docs/pruning.md.
    Source:
        Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", 2023.
    """

    name: ClassVar[str] = "smooth"
    wants_data: ClassVar[bool] = True

    strength: float = 0.5  # 0 levels weights, 1 levels activations

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise UsageError(
                f"strength={self.strength:g} is out of range", where="pass `smooth`", hint="it goes from 0 to 1"
            )

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        found = layers(model)
        able = [layer for layer in found if isinstance(layer, Linear) and layer.node.graph is model.graph]
        reasons = {layer.node: _obstacle(layer) for layer in able}
        open_ = [layer for layer in able if not reasons[layer.node]]
        largest = _largest(model, open_, model.meta.get(FEEDS) or [])
        taken = names(model)
        factors: dict[ir.Node, float] = {}  # the largest of each layer that was changed
        for group in groups(model, open_):
            top = largest.get(str(group[0].x.name))
            if top is None:
                reasons |= dict.fromkeys((layer.node for layer in group), "no data reached its inputs")
                continue
            s = self._factors(top, group)
            if (s == 1).all():
                reasons |= dict.fromkeys((layer.node for layer in group), "no input stands out")
                continue
            _rescale(group, s, taken)
            factors |= dict.fromkeys((layer.node for layer in group), float(s.max()))
        for layer in found:
            if isinstance(layer, Refusal):
                yield layer
            elif layer.node in factors:
                yield _changed(layer, factors[layer.node])
            else:
                reason = reasons.get(layer.node, "it stands in a subgraph")
                yield Refusal(layer.name, reason, {"shape": list(layer.shape)})

    def _factors(self, top: FloatArray, group: Sequence[Linear]) -> FloatArray:
        """s [K] for the largest |X| of each input, [K]; powers of two."""
        weights = np.max([np.abs(layer.matrix()).max(axis=1) for layer in group], axis=0)
        # What is never there, or never used, needs no scale; what is not finite can have none.
        live = (top > 0) & (weights > 0) & np.isfinite(weights)
        logs = self.strength * np.log2(top, where=live, out=np.zeros_like(top))
        logs -= (1 - self.strength) * np.log2(weights, where=live, out=np.zeros_like(weights))
        logs[live] -= logs[live].mean() if live.any() else 0
        bound = np.log2(_LARGEST)
        return np.exp2(np.rint(np.clip(logs, -bound, bound))).astype(np.float32)


def _changed(layer: Linear, factor: float) -> Change:
    what = f"inputs divided by up to {factor:g}, weights multiplied"
    return Change(layer.name, what, {"shape": list(layer.shape), "largest_factor": factor})


def _largest(model: ir.Model, able: Sequence[Linear], feeds: Sequence[Feed]) -> dict[str, FloatArray]:
    """The largest |x| [K] of each input over the rows that count, by the name of the value; no row, no entry."""
    found: dict[str, FloatArray] = {}
    if able:
        for batch in each_batch(model, feeds, {str(layer.x.name) for layer in able}, _largest_of):
            _raise(found, batch)
    return found


def _largest_of(batch: Iterable[tuple[Feed, Feed]]) -> dict[str, FloatArray]:
    found: dict[str, FloatArray] = {}
    for feed, by_name in batch:
        rows = {name: runtime.counted([value], feed)[0] for name, value in by_name.items()}
        _raise(found, {name: np.abs(x).max(axis=0) for name, x in rows.items() if len(x)})
    return found


def _raise(found: dict[str, FloatArray], more: Mapping[str, FloatArray]) -> None:
    for name, largest in more.items():
        found[name] = np.maximum(found.get(name, np.float32(0)), largest)


def _obstacle(layer: Linear) -> str:
    """Why the inputs of `layer` cannot be scaled; empty if they can."""
    if not _vectors(layer):
        return "no normalisation with constant scales makes its input"
    if layer.x.is_graph_output():
        return "its input is an output of the model, too"
    for node, index in layer.x.uses():
        other = _linear(node)
        if other is None or index != 0 or other.transposed_x:
            return f"{node.op_type} reads its input, too"
        if other.dtype is not ir.DataType.FLOAT or other.tensor.dtype is not ir.DataType.FLOAT:
            return "the weight is no fp32"
        if len([*readers(other.source)]) != 1 or other.source.is_graph_output():
            return "a weight is used elsewhere, too"
    return _decided([chosen(other) for node, _ in layer.x.uses() if (other := _linear(node)) is not None])


def _decided(choices: Sequence[Choice | None]) -> str:
    """What of a search's choices for layers of one input speaks against it; empty where nothing does."""
    if any(choice is not None and choice.pattern is not None for choice in choices):
        return "the search prunes it, or another layer that reads its input"
    if all(choice == Choice() for choice in choices):
        return "the search leaves it, and all that read its input"
    return ""


def _linear(node: ir.Node) -> Linear | None:
    found = find_linear(node)
    return found if isinstance(found, Linear) else None


def _vectors(layer: Linear) -> list[_Site]:
    """Where the scale, and the shift if there is one, of the layer's input are read: constants [K]."""
    node, length = layer.x.producer(), layer.shape[0]
    if node is None:
        return []
    if node.op_type in _NORMS and layer.x is node.outputs[0]:
        given = [i for i in (1, 2) if i < len(node.inputs) and node.inputs[i] is not None]
        return [(node, i) for i in given] if all(_is_vector(node.inputs[i], length) for i in given) else []
    place = _constant_of(node, length) if node.op_type in ("Add", "Mul") else None
    if place is None:
        return []
    if node.op_type == "Mul":
        return [(node, place)]
    scaled = node.inputs[1 - place]
    inner = None if scaled is None or sole_user(scaled) is not node else scaled.producer()
    scale = _constant_of(inner, length) if inner is not None and inner.op_type == "Mul" else None
    return [] if inner is None or scale is None else [(inner, scale), (node, place)]


def _constant_of(node: ir.Node, length: int) -> int | None:
    """Which of the two inputs of `node` is a constant [length]."""
    return next((i for i, value in enumerate(node.inputs) if _is_vector(value, length)), None)


def _is_vector(value: ir.Value | None, length: int) -> bool:
    array = constant(value)
    return array is not None and array.dtype == np.float32 and array.shape == (length,)


def _rescale(group: Sequence[Linear], s: FloatArray, taken: set[str]) -> None:
    for node, index in _vectors(group[0]):
        value = node.inputs[index]
        vector = constant(value)
        assert value is not None  # `_vectors` found constants
        assert vector is not None
        set_input(node, index, add_initializer(graph_of(node), vector / s, value.name or "scale", taken))
    for layer in group:
        set_weight(layer, layer.matrix() * s[:, None], taken)
