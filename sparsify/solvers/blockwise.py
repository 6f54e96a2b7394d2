"""Weights as unsigned integers of 4 or 8 bits, with a scale and a zero point for each block of inputs of a column.

    s = (max(w, 0) - min(w, 0)) / (2^bits - 1)     over the block; 1 where that is no normal float32
    z = round(-min(w, 0) / s)                       an integer in 0..2^bits - 1, so that 0 stays 0 exactly
    q = clip(round(w / s) + z, 0, 2^bits - 1)
    |w - (q - z) s| <= s                            half a step for rounding w, half for rounding z at the ends

K is padded to whole blocks with zeros. Source: onnxruntime's operator MatMulNBits (com.microsoft, version 1), whose
packing this is; Dettmers, Zettlemoyer, "The case for 4-bit precision", 2023, on why blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BITS = (4, 8)
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Blockwise:
    """A weight W [K, N] of which B = ceil(K / block) blocks of each column have their own step.

    Attributes:
        q: uint8 [N, B, block * bits / 8]; of 4 bits, the lower half of a byte is the first of two inputs.
        scale: float32 [N, B].
        zero: uint8 [N, ceil(B * bits / 8)], packed as q.
    """

    q: Bytes
    scale: npt.NDArray[np.float32]
    zero: Bytes

    @property
    def nbytes(self) -> int:
        return self.q.nbytes + self.scale.nbytes + self.zero.nbytes


def quantize(weight: npt.NDArray[np.float32], bits: int, block: int) -> Blockwise:
    """W float32 [K, N] in blocks of `block` inputs, an even number.

    Raises:
        ValueError: W holds a NaN or an infinity, or there are no such bits.
    """
    if bits not in BITS or block < 2 or block % 2:
        raise ValueError(f"{bits} bits in blocks of {block}")
    if not np.isfinite(weight).all():
        raise ValueError("only finite weights can be quantised")
    k, n = weight.shape
    padded = np.zeros((-(-k // block) * block, n), np.float32)
    padded[:k] = weight
    blocks = padded.reshape(-1, block, n)
    top = np.float32(2**bits - 1)
    low = np.minimum(blocks.min(axis=1), 0)
    # Halves first: the distance of two float32 may be infinite.
    scale = (np.maximum(blocks.max(axis=1), 0) / top - low / top).astype(np.float32)
    scale = np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1))
    zero = np.clip(np.rint(-low / scale), 0, top)
    q = np.clip(np.rint(blocks / scale[:, None]) + zero[:, None], 0, top)
    return Blockwise(
        _packed(np.ascontiguousarray(q.transpose(2, 0, 1)).astype(np.uint8), bits),
        np.ascontiguousarray(scale.T),
        _packed(np.ascontiguousarray(zero.T).astype(np.uint8), bits),
    )


def _packed(values: Bytes, bits: int) -> Bytes:
    """Two values of 4 bits a byte, along the last axis; an odd one stands alone."""
    if bits == 8:
        return values
    even = values if values.shape[-1] % 2 == 0 else np.concatenate([values, np.zeros_like(values[..., :1])], axis=-1)
    return (even[..., 0::2] | (even[..., 1::2] << 4)).astype(np.uint8)
