"""Multiply by the non-zeros only, in int8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sparsify import formats, storage
from sparsify.graph import FloatArray
from sparsify.lowering import Encoded, Lowering, NotEncodable, integer_obstacle
from sparsify.solvers.quantize import quantize


@dataclass(frozen=True)
class SparseInt8(Lowering):
    """Replaces linear layers by the operator SparseMatMulInt8: int8 non-zeros, activations quantised per row.

    What:
        MatMul and Gemm with a constant weight become `ai.sparsify` SparseMatMulInt8 (a bitmask and values) or
        SparseMatMulInt8Delta (gaps and values), whichever is smaller. Gemm's alpha, beta, C and transA are kept.
    When it fires:
        The weight is at least `min_sparsity` zeros (0: dense weights too) and, with `min_speedup` above 0, the
        operator was measured on this machine to be that many times faster than the dense fp32 layer.
    When it refuses:
        The layer has no constant fp32 matrix, is not sparse enough, holds a NaN or an infinity, a column has so
        many non-zeros that an int32 sum could overflow, or the measurement says that it does not pay.
    Mathematics:
        alpha W ~ q * scale, scale_n = max_k |alpha w_kn| / 127;  x ~ (p - z) * s, p in 0..255, one s and z a row;
        Y = s * scale * (p q - z sum_k q_k) + beta C.  |p q| <= 255 * 127 * nnz < 2^31.
    Cost:
        Time is proportional to non-zeros. 1 byte a non-zero, and one bit a weight or one byte a non-zero.
    Drift:
        |error| <= sum_k (|x_k| scale_n / 2 + |w_kn| s / 2 + scale_n s / 4), plus s |w_kn| / 2 for the rounded zero
        point; measure it with an audit.
    Source:
        Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference", 2018; activations as in onnxruntime's dynamic quantisation, but per row.
    """

    name: ClassVar[str] = "sparse-int8"
    format: ClassVar[str] = "sparse-int8"

    def encode(self, weight: FloatArray) -> Encoded:
        if reason := integer_obstacle(weight):
            raise NotEncodable(reason)
        values, scale = quantize(weight)
        storage.forget(weight)  # the largest layer of a model decides how much memory all this takes
        return Encoded(formats.encode(values), scale)
