"""Weights as int8 with one scale a column, symmetric.

    scale_n = max_k |w_kn| / 127      (1 where that is no normal float32: the column is all zero, or as good as)
    q_kn    = round(w_kn / scale_n)   to nearest even, in [-127, 127]
    |w_kn - q_kn * scale_n| <= scale_n / 2   (up to rounding of the division)

Zeros stay zeros, so sparsity is never lost; -128 is not used, so that -q always exists.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018, section 2, with the zero point fixed at 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import partial, reduce

import numpy as np
import numpy.typing as npt

from sparsify import parallel

LEVELS = 127
_BLOCK = 2**16  # weights at a time: 256 KiB of quotients stay in a cache of the second level
_TASK = 2**22  # weights of a thread: some 5 ms


def quantize(
    weight: npt.NDArray[np.float32], levels: int = LEVELS
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """q int8 [K, N] and scale float32 [N] of W float32 [K, N]; `levels` is the largest |q|, 1 to 127.

    Raises:
        ValueError: W holds a NaN or an infinity.
    """
    largest = reduce(np.maximum, parallel.in_pieces(partial(_largest, weight), len(weight), _rows(weight, _TASK)))
    if not np.isfinite(largest).all():  # a NaN is the largest and the smallest of its column
        raise ValueError("only finite weights can be quantised")
    scale = largest / np.float32(levels)
    # A subnormal scale has lost bits: w / scale could leave the range. No other does: |w| / scale rounds to `levels`.
    scale = np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1)).astype(np.float32)
    q = np.empty(weight.shape, np.int8)
    deque(parallel.in_pieces(partial(_round, weight, scale, q), len(weight), _rows(weight, _TASK)), maxlen=0)
    return q, scale


def _largest(weight: npt.NDArray[np.float32], piece: slice) -> npt.NDArray[np.float32]:
    """max |w| [N] of the rows `piece`."""
    largest = np.zeros(weight.shape[1], np.float32)
    for block in _blocks(weight, piece):
        np.maximum(largest, np.abs(weight[block]).max(axis=0), out=largest)
    return largest


def _round(
    weight: npt.NDArray[np.float32], scale: npt.NDArray[np.float32], q: npt.NDArray[np.int8], piece: slice
) -> None:
    """Fill the rows `piece` of q [K, N]."""
    for block in _blocks(weight, piece):
        quotient = weight[block] / scale
        q[block] = np.rint(quotient, out=quotient)


def _blocks(weight: npt.NDArray[np.float32], piece: slice) -> Iterator[slice]:
    rows = _rows(weight, _BLOCK)
    return (slice(at, min(at + rows, piece.stop)) for at in range(piece.start, piece.stop, rows))


def _rows(weight: npt.NDArray[np.float32], size: int) -> int:
    """As many rows as come to `size` weights, at least one."""
    return max(size // max(int(weight.shape[1]), 1), 1)
