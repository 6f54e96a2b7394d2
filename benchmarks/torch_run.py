"""Run by `torch_csr.py` with the interpreter of PyTorch's environment: NETWORK.npz ANSWER.npy; a run a line read."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch  # type: ignore[import-not-found, unused-ignore]


def main(data: str, answer: str) -> None:
    """Say how many milliseconds each run took; the first one's output is kept."""
    torch.set_num_threads(1)
    with np.load(data) as arrays:
        x = torch.from_numpy(arrays["x"])
        count = len({name.split("/")[0] for name in arrays if "/" in name})
        layers = [
            (
                torch.sparse_csr_tensor(
                    *(torch.from_numpy(arrays[f"{number}/{part}"]) for part in ("start", "index", "value")),
                    size=tuple(arrays[f"{number}/shape"].tolist()),
                ),
                torch.from_numpy(arrays[f"{number}/bias"])[:, None],
            )
            for number in range(count)
        ]
    for number, _ in enumerate(sys.stdin):
        began = time.perf_counter()
        with torch.inference_mode():
            y = x
            for weight, bias in layers[:-1]:
                y = (weight @ y).add_(bias).relu_()
            y = (layers[-1][0] @ y).add_(layers[-1][1])
        took = 1e3 * (time.perf_counter() - began)
        if number == 0:
            np.save(answer, y.numpy())
        print(json.dumps({"ms": took}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
