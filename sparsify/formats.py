"""Canonical on-disk encodings of a sparse matrix W [K, N], independent of any CPU.

Two encodings give every position exactly once, in row-major order of W:

    BITMASK  one bit a weight, little bit order, padded to whole bytes;   K*N/8 bytes + values
    DELTA    one gap a value: position_i = gap_0 + ... + gap_i - 1;       1, 2 or 4 bytes a value + values
             A gap beyond the range of its type is bridged by filler values of 0.

A third, COLUMNS, is for matrices whose dense form could not exist: DELTA in column-major order, so that a kernel
reads values and positions as they lie in the file. Gaps of 24 bits are stored in two parts,
gap = low + 65536 high: 1, 2 or 3 bytes a value + values. A network of random connections, n of K inputs each, holds
log2(e K / n) bits of positions a weight (6.7 for 20 of 784, 19.4 for 20 of 5 million): no encoding takes less.

The last, ROWS, has every weight, zeros too, as W is, and no positions: for kernels that skip what the activations say.

`encode` takes the smaller of the first two. Break-even with one-byte gaps is a density of 1/8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

Array = npt.NDArray[Any]  # of a type that the docstring names

_PIECE = 2**18  # weights of a bitmask at a time: what is made of them on the way stays in a cache

_GAP_TYPES: tuple[type[np.integer[Any]], ...] = (
    np.uint8,
    np.uint16,
    np.int32,
)  # types that ONNX Cast reads in every runtime tried


class Encoding(str, Enum):
    """How positions are stored; the value is the operator name's part."""

    BITMASK = ""
    DELTA = "Delta"
    COLUMNS = "Columns"
    ROWS = "Rows"

    __str__ = str.__str__


@dataclass(frozen=True)
class EncodedWeight:
    """A sparse W [K, N] as the operators read it.

    Attributes:
        shape: (K, N).
        encoding: how `positions` are to be read.
        positions: the operator's position inputs in order: bitmask uint8 [ceil(K*N/8)];
            gaps uint8|uint16|int32 [n]; or low parts uint8|uint16 [n] and high parts uint8 [n], or [1] when all are 0;
            none for ROWS.
        values: float32, int8 or bfloat16 (of ml_dtypes, as in onnx_ir) [n], [K, N] for ROWS; fillers are 0.
    """

    shape: tuple[int, int]
    encoding: Encoding
    positions: tuple[Array, ...]
    values: Array

    @property
    def nbytes(self) -> int:
        """Bytes on disk of positions and values."""
        return self.values.nbytes + sum(p.nbytes for p in self.positions)

    @property
    def nnz(self) -> int:
        """Number of non-zero values."""
        return int(np.count_nonzero(self.values))

    @property
    def sparsity(self) -> float:
        """Share of zeros, 0 to 1."""
        size = self.shape[0] * self.shape[1]
        return 1.0 - self.nnz / size if size else 0.0


def encode(weight: Array, encoding: Encoding | None = None) -> EncodedWeight:
    """Encode a dense W [K, N] (float32, int8 or bfloat16) as BITMASK, DELTA or ROWS; if not told, as the
    smaller of the first two.

    Raises:
        ValueError: `weight` is not a matrix, or `encoding` is COLUMNS (see `encode_columns`).
    """
    if weight.ndim != 2:
        raise ValueError(f"a weight must be a matrix, got shape {weight.shape}")
    if encoding is Encoding.COLUMNS:
        raise ValueError("COLUMNS is encoded from a sparse matrix: use encode_columns")
    if encoding is Encoding.ROWS:
        return EncodedWeight(_shape(weight), encoding, (), np.ascontiguousarray(weight))
    if encoding is Encoding.BITMASK:
        return _encode_bitmask(weight)
    if encoding is Encoding.DELTA:
        return _encode_delta(weight)
    if np.count_nonzero(weight) * 8 >= weight.size:  # a gap of one byte is no smaller than the 8 bits it would save
        return _encode_bitmask(weight)
    return min(_encode_bitmask(weight), _encode_delta(weight), key=lambda e: e.nbytes)


def encode_columns(weight: scipy.sparse.sparray) -> EncodedWeight:
    """Encode a SciPy sparse W [K, N] as COLUMNS without ever making it dense. Values become float32.

    Memory: the result and 64 MiB, and a copy of `weight` unless it is CSC with sorted indices and no explicit zero.
    """
    csc = _canonical(weight)
    k, n = (int(d) for d in csc.shape)
    bits = min(_COLUMN_GAPS, key=_column_bytes(csc))
    low_type, largest = _COLUMN_GAPS[bits], 2**bits - 1
    fillers = sum(int(((steps - 1) // largest).sum()) for steps, _ in _column_steps(csc))
    count = csc.nnz + fillers
    low, values = np.empty(count, low_type), np.zeros(count, np.float32)
    high = np.zeros(count if bits > 16 else 1, np.uint8)
    at = 0
    for steps, part in _column_steps(csc):
        gaps, keep = _bridged(steps, largest)
        end = at + gaps.size
        low[at:end] = gaps & np.iinfo(low_type).max
        if bits > 16:
            high[at:end] = gaps >> 16
        values[at:end][keep] = csc.data[part]
        at = end
    return EncodedWeight((k, n), Encoding.COLUMNS, (low, high), values)


def decode(weight: EncodedWeight) -> Array:
    """Dense W [K, N] of the type of `values`: the inverse of `encode` and `encode_columns`."""
    k, n = weight.shape
    if weight.encoding is Encoding.ROWS:
        return weight.values
    dense = np.zeros(k * n, weight.values.dtype)
    if weight.encoding is Encoding.BITMASK:
        bits = np.unpackbits(weight.positions[0], count=k * n, bitorder="little").view(bool)
        dense[bits] = weight.values
    elif weight.encoding is Encoding.DELTA:
        dense[np.cumsum(weight.positions[0], dtype=np.int64) - 1] = weight.values
    else:
        low, high = (p.astype(np.int64) for p in weight.positions)
        dense[np.cumsum(low + high * 65536) - 1] = weight.values
        return dense.reshape(n, k).T
    return dense.reshape(k, n)


def _encode_bitmask(weight: Array) -> EncodedWeight:
    flat = weight.ravel()
    packed = np.empty(-(-flat.size // 8), np.uint8)
    values = np.empty(np.count_nonzero(flat), flat.dtype)
    at = 0
    for first in range(0, flat.size, _PIECE):
        piece = flat[first : first + _PIECE]
        mask = piece != 0
        packed[first // 8 : (first + _PIECE) // 8] = np.packbits(mask, bitorder="little")
        there = piece[mask]
        values[at : at + there.size] = there
        at += there.size
    return EncodedWeight(_shape(weight), Encoding.BITMASK, (packed,), values)


def _encode_delta(weight: Array) -> EncodedWeight:
    flat = weight.ravel()
    positions = np.flatnonzero(flat)
    gaps, keep = _gaps(positions, start=-1, value_bytes=weight.itemsize)
    values = np.zeros(gaps.size, weight.dtype)
    values[keep] = flat[positions]
    return EncodedWeight(_shape(weight), Encoding.DELTA, (gaps,), values)


_COLUMN_GAPS: dict[int, type[np.unsignedinteger[Any]]] = {8: np.uint8, 16: np.uint16, 24: np.uint16}  # bits: low part
_CHUNK = 2**20  # non-zeros worked on at a time: 64 MiB of temporary arrays


def _canonical(weight: scipy.sparse.sparray) -> scipy.sparse.csc_array:
    """`weight` as CSC with ascending rows, no duplicates and no zeros; the caller's own arrays stay as they are."""
    csc = scipy.sparse.csc_array(weight)
    if csc.has_canonical_format and csc.data.all():
        return csc
    csc = csc.copy()
    csc.sum_duplicates()
    csc.eliminate_zeros()
    return csc


def _column_steps(csc: scipy.sparse.csc_array) -> Iterator[tuple[npt.NDArray[np.int64], slice]]:
    """Steps from non-zero to non-zero in column-major order, the first from -1, and which non-zeros they lead to."""
    k, before = np.int64(csc.shape[0]), np.int64(-1)
    for first in range(0, csc.nnz, _CHUNK):
        part = slice(first, min(first + _CHUNK, csc.nnz))
        left = np.searchsorted(csc.indptr, part.start, side="right") - 1
        right = np.searchsorted(csc.indptr, part.stop, side="left")
        bounds = np.clip(csc.indptr[left : right + 1], part.start, part.stop)
        columns = np.repeat(np.arange(left, right, dtype=np.int64), np.diff(bounds))
        positions = columns * k + csc.indices[part]
        yield np.diff(positions, prepend=before), part
        before = positions[-1]


def _column_bytes(csc: scipy.sparse.csc_array) -> Callable[[int], int]:
    """Bytes of COLUMNS by the bits of a gap, fillers with their values included."""
    fillers = dict.fromkeys(_COLUMN_GAPS, 0)
    for steps, _ in _column_steps(csc):
        for bits in fillers:
            fillers[bits] += int(((steps - 1) // (2**bits - 1)).sum())
    return lambda bits: (csc.nnz + fillers[bits]) * (bits // 8 + 4)


def _gaps(positions: npt.NDArray[np.int64], start: int, value_bytes: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """Gaps between ascending positions, the first from `start`, in the type of fewest bytes.

    Returns the gaps with fillers, and where in them the real values stand.
    """
    steps = np.diff(positions, prepend=np.int64(start))
    best = min(_GAP_TYPES, key=lambda t: _gap_bytes(steps, t, value_bytes))
    gaps, keep = _bridged(steps, int(np.iinfo(best).max))
    return gaps.astype(best), keep


def _bridged(steps: npt.NDArray[np.int64], largest: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """`steps` with fillers of `largest` wherever one is longer, and where among them the real ones stand."""
    fillers = np.maximum(steps - 1, 0) // largest
    keep = np.cumsum(fillers + 1) - 1
    gaps = np.full(int(fillers.sum()) + steps.size, largest, np.int64)
    gaps[keep] = steps - fillers * largest
    return gaps, keep


def _gap_bytes(steps: npt.NDArray[np.int64], dtype: type[np.integer[Any]], value_bytes: int) -> int:
    """Bytes of gaps in `dtype`, with each filler also costing a value."""
    info = np.iinfo(dtype)
    fillers = int((np.maximum(steps - 1, 0) // int(info.max)).sum())
    return int((steps.size + fillers) * info.bits // 8 + fillers * value_bytes)


def _shape(weight: Array) -> tuple[int, int]:
    return int(weight.shape[0]), int(weight.shape[1])
