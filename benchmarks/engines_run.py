"""Run by `engines.py` with the interpreter of a peer's environment: ENGINE MODEL.onnx X.npy; a run a line read.

Each answer says milliseconds, and how far the first result was from `answer.npy` beside MODEL, over its largest number.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def deepsparse(model: str, x: np.ndarray) -> Callable[[], Any]:
    """One core; the batch is the rows of x."""
    os.environ["NM_DISABLE_ANALYTICS"] = "True"  # it is asked before the import
    from deepsparse import Engine  # type: ignore[import-not-found, unused-ignore]

    engine = Engine(model, batch_size=len(x), num_cores=1)
    return lambda: engine.run([x])[0]


def openvino(model: str, x: np.ndarray) -> Callable[[], Any]:
    """One thread, tuned for latency; sparse weights are decompressed where the CPU has AMX."""
    import openvino as ov  # type: ignore[import-not-found, unused-ignore]

    options = {
        "INFERENCE_NUM_THREADS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": 0.5,
    }
    request = ov.Core().compile_model(model, "CPU", options).create_infer_request()
    return lambda: request.infer([x], share_inputs=True, share_outputs=True)[0]


def main(engine: str, model: str, data: str) -> None:
    """Answer, and then take times."""
    x = np.load(data)
    run = {"deepsparse": deepsparse, "openvino": openvino}[engine](model, x)
    expected = np.load(Path(model).with_name("answer.npy"))
    wrong = float(np.abs(np.asarray(run()) - expected).max() / np.abs(expected).max())
    for _ in sys.stdin:
        began = time.perf_counter()
        run()
        print(json.dumps({"ms": 1e3 * (time.perf_counter() - began), "difference": wrong}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
