"""How far the whole model drifts when one layer alone runs in low precision: measured, layer by layer.

What a form of a layer answers to the inputs that the layer sees, less what the layer answers, is its own error e. One
session of the model, in which every layer's output has an e added that is 0 unless given (`runtime.Trials`), then says
what e does to the outputs: no session for each layer and form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify import ops, runtime
from sparsify.data import Feed
from sparsify.graph import Linear
from sparsify.resume import Saved
from sparsify.rewrite import Choice
from sparsify.tune import candidates

Array = npt.NDArray[Any]


def measurable(layer: Linear, graph: ir.Graph) -> bool:
    """Whether the inputs and outputs of `layer` can be seen as they are."""
    seen = bool(layer.x.name) and bool(layer.output.name) and layer.node.graph is graph
    return seen and layer.dtype is ir.DataType.FLOAT and not layer.transposed_x


def measure(
    model: ir.Model,
    wanted: Mapping[Linear, Collection[str]],
    feeds: Sequence[Feed],
    *,
    memory: int,
    threads: int,
    saved: Saved,
) -> dict[tuple[str, str], float]:
    """Relative squared error of the outputs, by layer and format.

    Args:
        model: left as it is.
        wanted: formats by layer; each layer is `measurable`, and `observe_rows` saw it.
        feeds: to measure on.
        memory: bytes for inputs of layers at a time.
        threads: of onnxruntime.
        saved: where drifts are kept, of work that may be interrupted.

    Raises:
        InputError: the model does not run on the feeds.
    """
    found: dict[tuple[str, str], float] = {}
    missing: dict[Linear, list[str]] = {}
    for layer, formats in wanted.items():
        for format_ in formats:
            if (kept := saved.load(_step(layer, format_))) is not None:
                found[layer.name, format_] = float(kept[1])
            else:
                missing.setdefault(layer, []).append(format_)
    if not missing:
        return found
    trials = runtime.Trials(model, feeds, (), nudged=[str(layer.output.name) for layer in missing], threads=threads)
    for chunk in _chunks([*missing], memory // len(feeds)):
        names = {str(layer.x.name) for layer in chunk}
        inputs = list(runtime.capture(model, feeds, names, threads=threads))
        for layer in chunk:
            xs = [values[str(layer.x.name)] for values in inputs]
            for format_ in missing[layer]:
                errors = _errors(layer, format_, xs, threads)
                drift = trials.drift({}, [{str(layer.output.name): e} for e in errors])
                saved.save(_step(layer, format_), {}, drift)
                found[layer.name, format_] = drift
    return found


def _errors(layer: Linear, format_: str, xs: Sequence[Array], threads: int) -> list[Array]:
    """What the form adds to the layer's output, for each of its inputs [..., K]."""
    matrix = layer.matrix() * np.float32(layer.alpha)
    form = candidates.form(matrix, np.zeros(matrix.shape[1], np.float32), ops.Activation.NONE, Choice(format_))
    session = runtime.session(form, threads=threads)
    found = []
    for x in xs:
        flat = np.ascontiguousarray(x, np.float32).reshape(-1, matrix.shape[0])
        error = runtime.run(session, {"X": flat})["Y"] - flat @ matrix
        found.append(error.reshape(*x.shape[:-1], matrix.shape[1]).astype(np.float32))
    return found


def _chunks(layers: Sequence[Linear], memory: int) -> Iterator[list[Linear]]:
    """Layers whose inputs, of one feed, fit into `memory` together."""
    chunk: list[Linear] = []
    used = 0
    for layer in layers:
        size = 4 * int(layer.node.meta.get("rows", 1)) * layer.shape[0]
        if chunk and used + size > memory:
            yield chunk
            chunk, used = [], 0
        chunk.append(layer)
        used += size
    if chunk:
        yield chunk


def _step(layer: Linear, format_: str) -> str:
    return f"rounding-{hashlib.sha256(repr((layer.name, format_)).encode()).hexdigest()[:32]}"
