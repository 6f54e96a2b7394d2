"""Run by `peer.py` with the interpreter of onnxsim's environment: MODEL OUT METHOD SPARSITY FEEDS.npz."""

from __future__ import annotations

import json
import resource
import sys
import time

import numpy as np
import onnx
import onnxsim  # type: ignore[import-not-found, unused-ignore]


def main(model: str, out: str, method: str, sparsity: str, data: str) -> None:
    """Prune, write, print seconds and peak bytes as JSON."""
    feeds: dict[str, dict[str, np.ndarray]] = {}
    with np.load(data) as arrays:
        for key in arrays:
            number, name = key.split("/", 1)
            feeds.setdefault(number, {})[name] = arrays[key]
    prune = getattr(onnxsim, f"apply_{method}_pruning")
    calibration = {} if method == "magnitude" else {"calibration_data": [*feeds.values()], "num_samples": len(feeds)}
    wall, cpu = time.perf_counter(), time.process_time()
    pruned = prune(onnx.load(model), sparsity=float(sparsity), **calibration)
    facts = {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }
    restore_convolutions(onnx.load(model), pruned)
    onnx.save(pruned, out)
    print(json.dumps(facts))


def restore_convolutions(base: onnx.ModelProto, pruned: onnx.ModelProto) -> None:
    """Give `pruned` the convolutions of `base`: it prunes them, too, and offers no choice; nobody else does here.

    Their order is the same in both; names need not be.
    """
    before, after = _convolutions(base), _convolutions(pruned)
    for original, tensor in zip(before, after, strict=True):
        assert original.dims == tensor.dims, f"{original.name} is not {tensor.name}"
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(original), tensor.name))


def _convolutions(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    found = [node.input[1] for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    return [tensors[name] for name in found if name in tensors]


if __name__ == "__main__":
    main(*sys.argv[1:])
