"""Canonical on-disk encodings of a sparse matrix W [K, N], independent of any CPU.

Two encodings give every position exactly once, in row-major order of W:

    BITMASK  one bit a weight, little bit order, padded to whole bytes;   K*N/8 bytes + values
    DELTA    one gap a value: position_i = gap_0 + ... + gap_i - 1;       1, 2 or 4 bytes a value + values
             A gap beyond the range of its type is bridged by filler values of 0.

A third, COLUMNS, is for matrices whose dense form could not exist: values in column-major order,
an absolute row index a value, and the column index as gaps (gap 0: same column as before).

`encode` takes the smaller of the first two. Break-even with one-byte gaps is a density of 1/8.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

Array = npt.NDArray[Any]  # of a type that the docstring names

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

    __str__ = str.__str__


@dataclass(frozen=True)
class EncodedWeight:
    """A sparse W [K, N] as the operators read it.

    Attributes:
        shape: (K, N).
        encoding: how `positions` are to be read.
        positions: the operator's position inputs in order: bitmask uint8 [ceil(K*N/8)];
            gaps uint8|uint16|int32 [n]; or rows int32 [n] and column gaps uint8|uint16|int32 [n].
        values: float32, int8 or bfloat16 (of ml_dtypes, as in onnx_ir) [n]; fillers are 0.
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
    """Encode a dense W [K, N] (float32, int8 or bfloat16) as BITMASK or DELTA; the smaller one if not told.

    Raises:
        ValueError: `weight` is not a matrix, or `encoding` is COLUMNS (see `encode_columns`).
    """
    if weight.ndim != 2:
        raise ValueError(f"a weight must be a matrix, got shape {weight.shape}")
    if encoding is Encoding.COLUMNS:
        raise ValueError("COLUMNS is encoded from a sparse matrix: use encode_columns")
    if encoding is Encoding.BITMASK:
        return _encode_bitmask(weight)
    if encoding is Encoding.DELTA:
        return _encode_delta(weight)
    if np.count_nonzero(weight) * 8 >= weight.size:  # a gap of one byte is no smaller than the 8 bits it would save
        return _encode_bitmask(weight)
    return min(_encode_bitmask(weight), _encode_delta(weight), key=lambda e: e.nbytes)


def encode_columns(weight: scipy.sparse.sparray) -> EncodedWeight:
    """Encode a SciPy sparse W [K, N] as COLUMNS without ever making it dense. Values become float32."""
    csc = scipy.sparse.csc_array(weight)
    csc.sum_duplicates()
    csc.eliminate_zeros()
    k, n = csc.shape
    columns = np.repeat(np.arange(n, dtype=np.int64), np.diff(csc.indptr))
    gaps, keep = _gaps(columns, start=0)
    rows = np.zeros(gaps.size, np.int32)
    values = np.zeros(gaps.size, np.float32)
    rows[keep], values[keep] = csc.indices, csc.data
    return EncodedWeight((k, n), Encoding.COLUMNS, (rows, gaps), values)


def decode(weight: EncodedWeight) -> Array:
    """Dense W [K, N] of the type of `values`: the inverse of `encode` and `encode_columns`."""
    k, n = weight.shape
    dense = np.zeros(k * n, weight.values.dtype)
    if weight.encoding is Encoding.BITMASK:
        bits = np.unpackbits(weight.positions[0], count=k * n, bitorder="little").astype(bool)
        dense[bits] = weight.values
    elif weight.encoding is Encoding.DELTA:
        dense[np.cumsum(weight.positions[0], dtype=np.int64) - 1] = weight.values
    else:
        rows, gaps = weight.positions
        np.add.at(dense, rows * np.int64(n) + np.cumsum(gaps, dtype=np.int64), weight.values)
    return dense.reshape(k, n)


def _encode_bitmask(weight: Array) -> EncodedWeight:
    flat = weight.ravel()
    mask = flat != 0
    packed = np.packbits(mask, bitorder="little")
    return EncodedWeight(_shape(weight), Encoding.BITMASK, (packed,), flat[mask])


def _encode_delta(weight: Array) -> EncodedWeight:
    flat = weight.ravel()
    positions = np.flatnonzero(flat)
    gaps, keep = _gaps(positions, start=-1)
    values = np.zeros(gaps.size, weight.dtype)
    values[keep] = flat[positions]
    return EncodedWeight(_shape(weight), Encoding.DELTA, (gaps,), values)


def _gaps(positions: npt.NDArray[np.int64], start: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """Gaps between ascending positions, the first from `start`, in the type of fewest bytes.

    Returns the gaps with fillers, and where in them the real values stand.
    """
    steps = np.diff(positions, prepend=np.int64(start))
    best = min(_GAP_TYPES, key=lambda t: _gap_bytes(steps, t))
    largest = int(np.iinfo(best).max)
    fillers = np.maximum(steps - 1, 0) // largest
    keep = np.cumsum(fillers + 1) - 1
    gaps = np.full(int(fillers.sum()) + steps.size, largest, best)
    gaps[keep] = (steps - fillers * largest).astype(best)
    return gaps, keep


def _gap_bytes(steps: npt.NDArray[np.int64], dtype: type[np.integer[Any]]) -> int:
    """Bytes of gaps in `dtype`, with each filler also costing a value (taken as 4 bytes)."""
    info = np.iinfo(dtype)
    fillers = int((np.maximum(steps - 1, 0) // int(info.max)).sum())
    return int((steps.size + fillers) * info.bits // 8 + fillers * 4)


def _shape(weight: Array) -> tuple[int, int]:
    return int(weight.shape[0]), int(weight.shape[1])
