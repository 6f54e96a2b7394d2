"""A small convolutional network for handwritten digits as an ONNX file, built from its published weights.

Two convolutions of 3 x 3 with ReLU and pooling, then Gemm 3136-128-10 with weights stored [outputs, inputs], as torch's
exporter writes them: 95 % of the weights are in the first Gemm.

    input    input   float [batch, 1, 28, 28], grey values scaled by `MEAN` and `SPREAD`
    output   logits  float [batch, 10]

Source of the weights: the package `ccexam`, MIT; of the format: torch.save writes a zip of one pickle and one file of
plain numbers for each tensor.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from models.fetch import cache_folder, fetch
from models.graphs import Graph

MEAN, SPREAD = 0.1307, 0.3081  # of the grey values that it was trained on, white being 1


def mnist() -> Path:
    """The path of mnist.onnx, built if this builder has not built it before.

    Raises:
        FetchError: the weights cannot be had.
    """
    weights = fetch("mnist-weights")
    made_by = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    path = cache_folder() / weights.parent.name / f"mnist-{made_by}.onnx"
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}.part")
        onnx.save(build(state_dict(weights)), part)
        part.replace(path)
    return path


def build(weights: Mapping[str, npt.NDArray[Any]]) -> onnx.ModelProto:
    """The network.

    Raises:
        KeyError: a weight is missing.
    """
    g = Graph(weights)
    x = "input"
    for layer in ("features.0", "features.3"):
        x = g.add("Conv", x, *_parameters(g, layer), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        x = g.add("MaxPool", g.add("Relu", x), kernel_shape=[2, 2], strides=[2, 2])
    x = g.add("Flatten", x, axis=1)
    x = g.add("Relu", g.add("Gemm", x, *_parameters(g, "classifier.0"), transB=1))
    g.name(g.add("Gemm", x, *_parameters(g, "classifier.2"), transB=1), "logits")
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 28, 28])]
    return g.model("mnist", inputs, [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])])


def _parameters(g: Graph, layer: str) -> tuple[str, str]:
    return g.weight(layer + ".weight"), g.weight(layer + ".bias")


def state_dict(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """The tensors of a file that torch.save made of a state dict of float32 tensors.

    Raises:
        pickle.UnpicklingError: it asks for anything but tensors in dictionaries: nothing else is ever called.
    """
    with zipfile.ZipFile(path) as archive:
        (root,) = (name[: -len("data.pkl")] for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(root + "data.pkl") as file:
            return dict(_Tensors(file, archive, root).load())


class _Tensors(pickle.Unpickler):
    """Names of torch that a state dict needs, as functions of NumPy."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
            ("torch", "FloatStorage"): np.float32,
            ("collections", "OrderedDict"): OrderedDict,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"`{module}.{name}` is not what a state dict of float32 tensors needs")
        return known[module, name]

    def persistent_load(self, pid: Any) -> Any:
        _, kind, key, _, count = pid
        return np.frombuffer(self._archive.read(f"{self._root}data/{key}"), kind, count)


def _rebuilt(storage: npt.NDArray[np.float32], offset: int, shape: Any, strides: Any, *_: object) -> Any:
    steps = [step * storage.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps).copy()
