"""Inputs for a model that came without data: right in type and shape, safe, and nothing more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from sparsify.data import Array, Feed, TensorSpec, specs_of
from sparsify.errors import InputError
from sparsify.runtime.vocabulary import vocabulary

BATCH, SEQUENCE, IMAGE = 1, 128, 224  # one sample; the usual length of a text; the usual edge of a picture


def synthesize(inputs: Iterable[Any], *, seed: int = 0, sizes: Mapping[str, int] | None = None) -> Feed:
    """One feed for a model's inputs (see `data.check`).

    Dimensions that the model leaves open: one in `sizes` has that size; the sum `a + b` is a plus b; one with
    `past` in its name is 0 (an empty cache); the first of an input is 1; the third and fourth of four are 224;
    all others are 128. A symbol has one size everywhere.

    Floats are standard normal. Integers are any that the embedding which they look up has (see `vocabulary`), else 0 or
    1, which is inside any; all 1 where the name says mask (a row that is masked whole has no softmax), all 0 where it
    says type, 0, 1, 2 and so on along the last axis where it says position. Bools are true.

    Raises:
        InputError: an input whose type or rank is unknown, or strings: nothing sensible can be invented.
    """
    rng = np.random.default_rng(seed)
    known, given = dict(sizes or {}), list(inputs)
    bounds = {value.name: vocabulary(value) for value in given if isinstance(value, ir.Value)}
    return {spec.name: _array(spec, _shape(spec, known), bounds.get(spec.name), rng) for spec in specs_of(given)}


def _shape(spec: TensorSpec, known: dict[str, int]) -> tuple[int, ...]:
    if spec.shape is None:
        raise InputError(f"the rank of input `{spec.name}` is unknown", hint="give data with --data")
    rank = len(spec.shape)
    return tuple(d if isinstance(d, int) else _size(d, _usual(axis, rank), known) for axis, d in enumerate(spec.shape))


def _usual(axis: int, rank: int) -> int:
    if axis == 0:
        return BATCH
    return IMAGE if rank == 4 and axis >= 2 else SEQUENCE


def _size(symbol: str | None, usual: int, known: dict[str, int]) -> int:
    if not symbol:
        return usual
    if symbol in known:
        return known[symbol]
    if "+" in symbol:
        parts = (part.strip() for part in symbol.split("+"))
        return sum(int(p) if p.isdigit() else _size(p, usual, known) for p in parts)
    return known.setdefault(symbol, 0 if "past" in symbol.lower() else usual)


def _array(spec: TensorSpec, shape: tuple[int, ...], bound: int | None, rng: np.random.Generator) -> Array:
    if spec.dtype in (None, "str") or spec.dtype.startswith(("seq", "map", "optional")):
        raise InputError(f"no input can be invented for `{spec.name}`, {spec}", hint="give data with --data")
    dtype = _numpy_type(spec)
    if dtype.kind == "b":
        return np.ones(shape, dtype)
    if dtype.kind not in "iu":
        return rng.standard_normal(shape, np.float32).astype(dtype)
    name = spec.name.lower()
    if "mask" in name:
        return np.ones(shape, dtype)
    if "type" in name:
        return np.zeros(shape, dtype)
    if "position" in name and shape:
        return np.broadcast_to(np.arange(shape[-1]) % (bound or shape[-1] or 1), shape).astype(dtype)
    return rng.integers(0, bound or 2, shape).astype(dtype)


def _numpy_type(spec: TensorSpec) -> np.dtype[Any]:
    try:
        return np.dtype(spec.dtype)
    except TypeError as error:
        raise InputError(f"no input can be invented for `{spec.name}`, {spec}", hint="give data with --data") from error
