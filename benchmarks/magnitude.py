"""Magnitude pruning, the one that needs no data: of each MatMul and Gemm weight the smallest elements become zeros."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper


def pruned(model: Path, share: float, path: Path) -> Path:
    """`model` with that share of zeros in every weight [K, N] of a linear layer, written to `path`."""
    proto = onnx.load(model)
    used = {name for node in proto.graph.node if node.op_type in ("MatMul", "Gemm") for name in node.input[1:2]}
    for tensor in proto.graph.initializer:
        if tensor.name in used and len(tensor.dims) == 2:
            weight = numpy_helper.to_array(tensor).copy()
            size = np.abs(weight)
            weight[size < np.quantile(size, share)] = 0
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    onnx.save(proto, path)
    return path
