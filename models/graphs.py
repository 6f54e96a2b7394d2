"""An ONNX graph as it is written down node by node: what the builders of models share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

_OPSET, _IR_VERSION = 17, 8


class Graph:
    """Nodes and initializers as they are added; values are named after the node that makes them."""

    def __init__(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """`weights` by the names under which they are asked for."""
        self.weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """A node; the name of its output."""
        return self.add_many(1, op, *inputs, **attributes)[0]

    def add_many(self, count: int, op: str, *inputs: str, **attributes: Any) -> list[str]:
        """A node of `count` outputs; their names."""
        name = f"/{op}_{len(self._nodes)}"
        outputs = [name] if count == 1 else [f"{name}_{i}" for i in range(count)]
        self._nodes.append(helper.make_node(op, list(inputs), outputs, name=name, **attributes))
        return outputs

    def name(self, value: str, output: str) -> None:
        """Let `value` be known as `output`."""
        self._nodes.append(helper.make_node("Identity", [value], [output], name=output))

    def const(self, name: str, array: npt.NDArray[Any]) -> str:
        """A constant; of two by the same name the first stays."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def weight(self, name: str) -> str:
        """A weight as it is, float32."""
        return self.const(name, self.weights[name].astype(np.float32))

    def number(self, value: float) -> str:
        """A float32 scalar."""
        return self.const(f"float_{value:g}", np.array(value, np.float32))

    def ints(self, *values: int) -> str:
        """An int64 vector."""
        return self.const("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def linear(self, x: str, name: str) -> str:
        """x W + b for W [inputs, outputs], stored as torch keeps it, [outputs, inputs]; no b if there is none."""
        stored = self.weights[name + ".weight"].astype(np.float32)
        product = self.add("MatMul", x, self.const(name + ".weight", stored.T))
        return self.add("Add", product, self.weight(name + ".bias")) if name + ".bias" in self.weights else product

    def model(
        self, name: str, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        """All of it, checked."""
        graph = helper.make_graph(self._nodes, name, inputs, outputs, list(self._constants.values()))
        opsets = [helper.make_opsetid("", _OPSET)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="sparsify-models")
        onnx.checker.check_model(made)
        return made
