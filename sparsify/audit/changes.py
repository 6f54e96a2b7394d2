"""What changed between two files, told without running either: interface, opsets, operators, weights, and the stamp.

Weights are the initializers of all graphs. One of the candidate belongs to the base's of the same name; else, if its
elements are the same, to one that the candidate no longer has ("renamed"). Zeros are counted in what is stored: packed
weights of `ai.sparsify` operators are new weights of their own, with few zeros in them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from sparsify.audit import metrics
from sparsify.graph import nodes, opset
from sparsify.ops import DOMAIN

STAMP_PREFIX = f"{DOMAIN}."  # of the metadata that `sparsify optimize` writes
_SOURCE = "sha256:"


@dataclass(frozen=True)
class WeightChange:
    """One weight that is not the same in both files.

    Attributes:
        name: of the initializer.
        change: "changed", "added" or "removed".
        shape, type, bytes, zeros: of base and candidate, None in the one that does not have it; zeros as a share.
        relative_l2: |c - b| / |b| of a weight of one shape that is float in both; else None.
    """

    name: str
    change: str
    shape: tuple[list[int] | None, list[int] | None]
    type: tuple[str | None, str | None]
    bytes: tuple[int | None, int | None]
    zeros: tuple[float | None, float | None]
    relative_l2: float | None = None


@dataclass(frozen=True)
class Changes:
    """What is not the same in two files.

    Attributes:
        interface: a sentence for each input or output whose type or shape differs.
        opsets: versions in base and candidate by domain, all of them; None where one does not import it.
        ir_version, producer: of base and candidate.
        nodes: how many in base and candidate, subgraphs and functions included.
        operators: counts in base and candidate of the operators whose count differs.
        weights: those that differ, in the order of their names.
        same_weights, renamed_weights: how many are equal under the same and under another name.
        weight_bytes: of all weights in base and candidate.
        zeros: share of zeros in all float weights of base and candidate; None without any.
        stamp: what the candidate says that Sparsify did to it; empty when it says nothing.
        stamp_source: whether the base is the file that the stamp names; None when it names none.
    """

    interface: tuple[str, ...]
    opsets: Mapping[str, tuple[int | None, int | None]]
    ir_version: tuple[int, int]
    producer: tuple[str, str]
    nodes: tuple[int, int]
    operators: Mapping[str, tuple[int, int]]
    weights: tuple[WeightChange, ...]
    same_weights: int
    renamed_weights: int
    weight_bytes: tuple[int, int]
    zeros: tuple[float | None, float | None]
    stamp: Mapping[str, str]
    stamp_source: bool | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON carries it."""
        return asdict(self)


def changes(base: ir.Model, candidate: ir.Model, base_sha256: str) -> Changes:
    """Compare two models. Reads each weight once, one at a time.

    Args:
        base, candidate: models; left as they are.
        base_sha256: digest of the base's file, in hex, to be held against the candidate's stamp.
    """
    before, after = _weights(base), _weights(candidate)
    found = _weight_changes(before, after)
    stamp = {k.removeprefix(STAMP_PREFIX): v for k, v in candidate.metadata_props.items() if k.startswith(STAMP_PREFIX)}
    source = stamp.get("source", "").removeprefix(_SOURCE)
    domains = {_domain(d): None for m in (base, candidate) for d in m.opset_imports}
    return Changes(
        interface=tuple(_interface(base, candidate)),
        opsets={domain: (_opset(base, domain), _opset(candidate, domain)) for domain in domains},
        ir_version=(base.ir_version, candidate.ir_version),
        producer=(_producer(base), _producer(candidate)),
        nodes=(sum(1 for _ in nodes(base)), sum(1 for _ in nodes(candidate))),
        operators=_operators(base, candidate),
        weights=tuple(found.rows),
        same_weights=found.same,
        renamed_weights=found.renamed,
        weight_bytes=(sum(t.nbytes for t in before.values()), sum(t.nbytes for t in after.values())),
        zeros=(found.zeros(0), found.zeros(1)),
        stamp=stamp,
        stamp_source=source == base_sha256 if source else None,
    )


class _Found:
    def __init__(self) -> None:
        self.rows: list[WeightChange] = []
        self.same = self.renamed = 0
        self._zeros = [0, 0]
        self._elements = [0, 0]

    def count(self, side: int, array: np.ndarray[Any, Any]) -> float:
        """The share of zeros in `array`, which is added to those of its model if it is float."""
        zeros = int(array.size - np.count_nonzero(array))
        if metrics.is_float(array):
            self._zeros[side] += zeros
            self._elements[side] += array.size
        return zeros / array.size if array.size else 0.0

    def zeros(self, side: int) -> float | None:
        return self._zeros[side] / self._elements[side] if self._elements[side] else None


def _weight_changes(before: Mapping[str, ir.TensorProtocol], after: Mapping[str, ir.TensorProtocol]) -> _Found:
    found = _Found()
    gone: dict[bytes, list[WeightChange]] = {}
    for name, tensor in before.items():
        array = tensor.numpy()
        zeros = found.count(0, array)
        if name not in after:
            row = _row(name, "removed", tensor, None, (zeros, None))
            gone.setdefault(_digest(tensor, array), []).append(row)
            continue
        other = after[name].numpy()
        other_zeros = found.count(1, other)
        if tensor.dtype == after[name].dtype and array.shape == other.shape and array.tobytes() == other.tobytes():
            found.same += 1
            continue
        far = _relative_l2(array, other)
        found.rows.append(_row(name, "changed", tensor, after[name], (zeros, other_zeros), far))
    for name, tensor in after.items():
        if name in before:
            continue
        array = tensor.numpy()
        zeros = found.count(1, array)
        if twins := gone.get(_digest(tensor, array)):
            twins.pop()
            found.renamed += 1
        else:
            found.rows.append(_row(name, "added", None, tensor, (None, zeros)))
    found.rows += [row for rows in gone.values() for row in rows]
    found.rows.sort(key=lambda row: row.name)
    return found


def _row(
    name: str,
    change: str,
    base: ir.TensorProtocol | None,
    candidate: ir.TensorProtocol | None,
    zeros: tuple[float | None, float | None],
    relative_l2: float | None = None,
) -> WeightChange:
    both = (base, candidate)
    shapes = [None if t is None else [int(d) for d in t.shape.numpy()] for t in both]
    types = [None if t is None else t.dtype.name.lower() for t in both]
    sizes = [None if t is None else t.nbytes for t in both]
    return WeightChange(
        name, change, (shapes[0], shapes[1]), (types[0], types[1]), (sizes[0], sizes[1]), zeros, relative_l2
    )


def _relative_l2(base: np.ndarray[Any, Any], candidate: np.ndarray[Any, Any]) -> float | None:
    if base.shape != candidate.shape or not metrics.is_float(base) or not metrics.is_float(candidate):
        return None
    b, c, bad = metrics.comparable(base, candidate)
    far = float(metrics.relative_l2((b * b).sum(), ((c - b) ** 2).sum()))
    return None if bad.any() or not np.isfinite(far) else far


def _weights(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    found: dict[str, ir.TensorProtocol] = {}
    for graph in model.graphs():
        found |= {name: v.const_value for name, v in graph.initializers.items() if v.const_value is not None}
    return found


def _digest(tensor: ir.TensorProtocol, array: np.ndarray[Any, Any]) -> bytes:
    head = f"{tensor.dtype} {array.shape} ".encode()
    return hashlib.sha256(head + (repr(array.tolist()).encode() if array.dtype == object else array.tobytes())).digest()


def _operators(base: ir.Model, candidate: ir.Model) -> dict[str, tuple[int, int]]:
    before, after = (Counter(_operator(n) for n in nodes(model)) for model in (base, candidate))
    return {op: (before[op], after[op]) for op in sorted(before | after) if before[op] != after[op]}


def _operator(node: ir.Node) -> str:
    return f"{node.domain}.{node.op_type}" if _domain(node.domain) else node.op_type


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain  # two names of one


def _opset(model: ir.Model, domain: str) -> int | None:
    return (model.opset_imports.get(domain) if domain else opset(model)) or None


def _producer(model: ir.Model) -> str:
    return " ".join(part for part in (model.producer_name, model.producer_version) if part)


def _interface(base: ir.Model, candidate: ir.Model) -> list[str]:
    found = []
    for kind, before, after in (
        ("input", base.graph.inputs, candidate.graph.inputs),
        ("output", base.graph.outputs, candidate.graph.outputs),
    ):
        known = {v.name: v for v in after}
        for value in before:
            other = known.get(value.name)
            if other is not None and not _fits(value, other):
                found.append(f"{kind} `{value.name}` was {_signature(value)} and is {_signature(other)}")
    return found


def _fits(base: ir.Value, candidate: ir.Value) -> bool:
    """Whether the two may be the same: one file may say less of it, and call a symbol otherwise."""
    if base.dtype != candidate.dtype:
        return False
    if base.shape is None or candidate.shape is None:
        return True
    pairs = zip(base.shape, candidate.shape, strict=False)
    numbers = [(a, b) for a, b in pairs if isinstance(a, int) and isinstance(b, int)]
    return len(base.shape) == len(candidate.shape) and all(a == b for a, b in numbers)


def _signature(value: ir.Value) -> str:
    dims = "unknown" if value.shape is None else [d if isinstance(d, int) else "?" for d in value.shape]
    kind = value.dtype.name.lower() if value.dtype is not None else str(value.type)
    return f"{kind} {dims}".replace("'", "")
