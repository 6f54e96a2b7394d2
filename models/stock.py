"""Run a model in onnxruntime alone, as a user without Sparsify would: a program of its own that loads nothing of ours.

python -I models/stock.py MODEL FEED.npz OUT.npz
"""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime


def main(model: str, feed: str, out: str) -> None:
    """Write the outputs of `model` on `feed` to `out`, by name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    with np.load(feed) as arrays:
        outputs = session.run(names, dict(arrays))
    assert "sparsify" not in sys.modules  # else this would prove nothing
    np.savez(out, **dict(zip(names, outputs, strict=True)))


if __name__ == "__main__":
    main(*sys.argv[1:])
