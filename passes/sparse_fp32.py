"""Multiply by the non-zeros only, in fp32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sparsify import formats
from sparsify.graph import FloatArray, Linear
from sparsify.lowering import Encoded, Lowering


@dataclass(frozen=True)
class SparseFp32(Lowering):
    """Replaces linear layers by the operator SparseMatMul, which stores and multiplies non-zeros only.

    What:
        MatMul and Gemm with a constant weight become `ai.sparsify` SparseMatMul (a bitmask and values) or
        SparseMatMulDelta (gaps and values), whichever is smaller. Gemm's alpha, beta, C and transA are kept.
        A sparse initializer that is too large to be made dense becomes SparseMatMulColumns.
    When it fires:
        The weight is at least `min_sparsity` zeros and, with `min_speedup` above 0, the operator was measured
        on this machine to be that many times faster than the dense layer. What cannot be dense is not measured.
    When it refuses:
        The layer has no constant fp32 matrix, is not sparse enough, or the measurement says that it does not pay.
    Mathematics:
        Y = X (alpha W) + beta C
    Cost:
        Time is proportional to non-zeros. 4 bytes a non-zero, and one bit a weight or one byte a non-zero.
    Drift:
        Rounding: sums run in another order, and alpha is folded into W.
        |error| <= (K + 2) eps sum_k |x_k w_kn|, as for any fp32 product.
    Source:
        Curci, Mocanu, Pechenizkiy, "Truly Sparse Neural Networks at Scale", 2021.
    """

    name: ClassVar[str] = "sparse-fp32"
    format: ClassVar[str] = "sparse-fp32"

    takes_huge: ClassVar[bool] = True

    min_sparsity: float = 0.5  # share of zeros below which a layer is left alone

    def encode_huge(self, layer: Linear) -> Encoded:
        return Encoded(formats.encode_columns(layer.columns()))

    def encode(self, weight: FloatArray) -> Encoded:
        return Encoded(formats.encode(weight))
