"""Multiply by the non-zeros only, in bfloat16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import ml_dtypes
import numpy as np

from sparsify import formats
from sparsify.graph import FloatArray
from sparsify.lowering import Encoded, Lowering, NotEncodable

_LARGEST = (2 - 2**-7) * 2.0**127


@dataclass(frozen=True)
class SparseBf16(Lowering):
    """Replaces linear layers by the operator SparseMatMulBf16: bfloat16 non-zeros and activations, sums in fp32.

    What:
        MatMul and Gemm with a constant weight become `ai.sparsify` SparseMatMulBf16 (a bitmask and values) or
        SparseMatMulBf16Delta (gaps and values), whichever is smaller. Gemm's alpha, beta, C and transA are kept.
    When it fires:
        The weight is at least `min_sparsity` zeros (0: dense weights too) and, with `min_speedup` above 0, the
        operator was measured on this machine to be that many times faster than the dense fp32 layer.
    When it refuses:
        The layer has no constant fp32 matrix, is not sparse enough, holds a NaN, an infinity or a number beyond the
        range of bfloat16, the model's opset is below 13, or the measurement says that it does not pay.
    Mathematics:
        Y = bfloat16(X) bfloat16(alpha W) + beta C, rounded to nearest, ties to even; products are exact in fp32.
    Cost:
        Time is proportional to non-zeros. 2 bytes a non-zero, and one bit a weight or one byte a non-zero.
    Drift:
        bfloat16 has 8 significant bits: each operand is off by at most 2^-8 of itself.
        |error| <= (2^-7 + 2^-16 + (K + 2) eps) sum_k |x_k w_kn|; the largest term does not grow with K.
    Source:
        Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training", 2019.
    """

    name: ClassVar[str] = "sparse-bf16"
    format: ClassVar[str] = "sparse-bf16"

    def encode(self, weight: FloatArray) -> Encoded:
        with np.errstate(over="ignore"):  # refused below
            values = weight.astype(ml_dtypes.bfloat16)
        if not np.isfinite(values).all():
            raise NotEncodable(f"the weight holds a NaN, an infinity or a number beyond {_LARGEST:.3g}")
        return Encoded(formats.encode(values))
