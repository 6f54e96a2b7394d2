"""PyTorch's CSR product, from an environment of its own (made once in benchmarks/results): compared with, not required.

It runs in a process of its own that is told when to run, so that it takes its turn among the others, and that says
itself how long the network took.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.peer import environment
from benchmarks.turns import Turns
from models.set_mlp import Layer

PIN = ("torch==2.14.1", "numpy")

Matrix = npt.NDArray[np.float32]


class Network:
    """All of `layers`, on activations [K, batch] that are given at the start."""

    def __init__(self, folder: Path, layers: list[Layer], x: Matrix) -> None:
        self._answer = folder / "torch-answer.npy"
        arrays = {"x": x}
        for number, layer in enumerate(layers):
            csr = layer.weight.T.tocsr()
            parts = {"start": csr.indptr, "index": csr.indices, "value": csr.data, "shape": csr.shape}
            arrays |= {f"{number}/{name}": np.asarray(part) for name, part in parts.items()}
            arrays[f"{number}/bias"] = layer.bias
        data = folder / "torch-network.npz"
        np.savez(data, **arrays)  # type: ignore[arg-type]
        self.turns = Turns(environment(folder / "torch", PIN), "torch_run.py", data, self._answer)

    def __call__(self, x: Matrix) -> Matrix:
        """The output [N, batch]; `x` is not looked at."""
        self.turns.time()
        found: Matrix = np.load(self._answer)
        return found
