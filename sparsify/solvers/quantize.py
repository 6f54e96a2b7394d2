"""Weights as int8 with one scale a column, symmetric.

    scale_n = max_k |w_kn| / 127      (1 where that is no normal float32: the column is all zero, or as good as)
    q_kn    = round(w_kn / scale_n)   to nearest even, in [-127, 127]
    |w_kn - q_kn * scale_n| <= scale_n / 2   (up to rounding of the division)

Zeros stay zeros, so sparsity is never lost; -128 is not used, so that -q always exists.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018, section 2, with the zero point fixed at 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LEVELS = 127
_BLOCK = 2**24  # weights at a time: what is computed on the way takes four times the memory of the result


def quantize(
    weight: npt.NDArray[np.float32], levels: int = LEVELS
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """q int8 [K, N] and scale float32 [N] of W float32 [K, N]; `levels` is the largest |q|, 1 to 127.

    Raises:
        ValueError: W holds a NaN or an infinity.
    """
    q, scale = np.empty(weight.shape, np.int8), np.empty(weight.shape[1], np.float32)
    columns = max(_BLOCK // max(weight.shape[0], 1), 1)
    for at in range(0, weight.shape[1], columns):
        part = slice(at, at + columns)
        q[:, part], scale[part] = _quantize(weight[:, part], levels)
    return q, scale


def _quantize(weight: npt.NDArray[np.float32], levels: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    if not np.isfinite(weight).all():
        raise ValueError("only finite weights can be quantised")
    scale = np.abs(weight).max(axis=0, initial=0).astype(np.float32) / np.float32(levels)
    # A subnormal scale has lost bits: w / scale could leave the range.
    scale = np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1)).astype(np.float32)
    return np.clip(np.rint(weight / scale), -levels, levels).astype(np.int8), scale
