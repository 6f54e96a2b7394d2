"""Values and weights in a few numbers each, so that all of two models can be compared at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx.numpy_helper

from sparsify.audit.attribution.sides import Side, Value, reads
from sparsify.data import Array
from sparsify.runtime import run

Floats = npt.NDArray[np.float64]

POINTS = (
    256  # elements taken of each value: the relative error of a norm estimated from n of them is about sqrt(1/2n), 4 %
)
Fingerprint = tuple[str, int, int, int]


def chunks(values: Iterable[str], facts: Mapping[str, Value], limit: int) -> Iterator[list[str]]:
    """`values` in order, in lists of at most `limit` bytes; one that is larger has a list of its own."""
    chunk: list[str] = []
    used = 0
    for value in values:
        if chunk and used + facts[value].nbytes > limit:
            yield chunk
            chunk, used = [], 0
        chunk.append(value)
        used += facts[value].nbytes
    if chunk:
        yield chunk


def sketches(side: Side, values: Sequence[str], feed: Mapping[str, Array], limit: int) -> Floats:
    """[len(values), POINTS] elements of each value on `feed`: the same places in all values of one shape."""
    found = np.zeros((len(values), POINTS))
    row = 0
    for chunk in chunks(values, side.values, limit):
        for name, array in run(side.probe.session(chunk), feed).items():
            found[row + chunk.index(name)] = _points(array)
        row += len(chunk)
    return found


def distances(base: Floats, candidate: Floats) -> Floats:
    """[n, m] |b - c| / |b| of all pairs of rows; 0 where both are 0, infinite where only b is."""
    powers = (base * base).sum(axis=1)[:, None]
    squared = powers + (candidate * candidate).sum(axis=1)[None, :] - 2 * base @ candidate.T
    squared = np.maximum(squared, 0)  # a difference of large numbers: exact to 1e-8 of the norms, and it is used to 0.1
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(squared == 0, 0.0, np.sqrt(squared / powers))


def _points(array: Array) -> Floats:
    flat = array.reshape(-1)
    if not flat.size:
        return np.zeros(POINTS)
    # Evenly spread would see the same channel again and again.
    places = np.random.default_rng(flat.size).integers(0, flat.size, POINTS)
    taken = flat[places].astype(np.float64)
    return np.nan_to_num(np.clip(taken, -1e30, 1e30))  # so that squares are finite


def fingerprints(side: Side) -> dict[int, frozenset[Fingerprint]]:
    """Of the constants that each node reads, by its index: equal for equal elements in whatever order and shape.

    A matrix that one exporter stores transposed has the same. Constants of fewer than 8 elements say too little.
    """
    known: dict[str, Fingerprint] = {}
    for tensor in side.graph.initializer:
        if np.prod(tensor.dims, dtype=object) >= 8:
            known[tensor.name] = _fingerprint(_array(tensor, side.probe.skeleton.folder))
    for node in side.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            array = onnx.numpy_helper.to_array(node.attribute[0].t)
            if array.size >= 8:
                known[node.output[0]] = _fingerprint(array)
        # What only turns a constant round stands for it.
        elif node.op_type in ("Transpose", "Identity", "Reshape", "Unsqueeze", "Cast") and node.input[0] in known:
            known[node.output[0]] = known[node.input[0]]
    return {
        index: frozenset(known[name] for name in reads(node) if name in known)
        for index, node in enumerate(side.graph.node)
    }


def _array(tensor: onnx.TensorProto, folder: Path | None) -> Array:
    return onnx.numpy_helper.to_array(tensor, base_dir=str(folder or ""))


def _fingerprint(array: Array) -> Fingerprint:
    """Type, count, sum and sum of squares of the elements' bits, modulo 2^64."""
    if array.dtype == object:
        return str(array.dtype), array.size, hash(tuple(map(str, array.reshape(-1)))), 0
    bits = np.ascontiguousarray(array).reshape(-1).view(f"u{min(array.itemsize, 8)}").astype(np.uint64)
    with np.errstate(over="ignore"):
        return array.dtype.name, array.size, int(bits.sum()), int((bits * bits).sum())
