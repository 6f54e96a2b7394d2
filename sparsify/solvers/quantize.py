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
_BLOCK = 2**16  # weights at a time: 256 KiB of quotients stay in a cache of the second level


def quantize(
    weight: npt.NDArray[np.float32], levels: int = LEVELS
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """q int8 [K, N] and scale float32 [N] of W float32 [K, N]; `levels` is the largest |q|, 1 to 127.

    Raises:
        ValueError: W holds a NaN or an infinity.
    """
    largest = np.maximum(weight.max(axis=0, initial=0), -weight.min(axis=0, initial=0))
    if not np.isfinite(largest).all():  # a NaN is the largest and the smallest of its column
        raise ValueError("only finite weights can be quantised")
    scale = largest / np.float32(levels)
    # A subnormal scale has lost bits: w / scale could leave the range. No other does: |w| / scale rounds to `levels`.
    scale = np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1)).astype(np.float32)
    q = np.empty(weight.shape, np.int8)
    rows = max(_BLOCK // max(weight.shape[1], 1), 1)
    for at in range(0, weight.shape[0], rows):
        quotient = weight[at : at + rows] / scale
        q[at : at + rows] = np.rint(quotient, out=quotient)
    return q, scale
