"""What surrounds a linear layer: who reads the same input, which bias is its own, what its output is added to."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from sparsify.graph import linear_layers
from sparsify.pruning import bias_of, groups, residual_of, shift_bias

BLOCK = """<ir_version: 8, opset_import: ["" : 17]>
g (float[M,4] x) => (float[M,4] y)
<float[4,4] a = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}, float[4] b = {1,2,3,4}>
{ r = Relu(x)
  q = MatMul(r, a)
  s = Sigmoid(q)
  k = MatMul(x, a)
  v = Gemm(r, a, b)
  p = Add(s, v)
  t = Mul(p, k)
  o = MatMul(t, a)
  c = Add(o, b2)
  y = Add(x, c) }"""


def block(text: str = BLOCK) -> ir.Model:
    return ir.from_onnx_text(text.replace("{1,2,3,4}>", "{1,2,3,4}, float[4] b2 = {0,0,0,0}>"))


def outputs(layers: list) -> list[str]:
    return [layer.output.name for layer in layers]


def test_layers_of_one_input_form_a_group_and_groups_go_in_graph_order():
    model = block()
    assert [outputs(g) for g in groups(model, linear_layers(model))] == [["k"], ["q", "v"], ["o"]]


def test_biases_and_residual_connections():
    layers = {layer.output.name: layer for layer in linear_layers(block())}
    assert {name: bias.name if (bias := bias_of(layer)) else None for name, layer in layers.items()} == {
        "q": None,
        "k": None,
        "v": "b",
        "o": "b2",
    }
    found = {name: value.name if (value := residual_of(layer)) else None for name, layer in layers.items()}
    assert found == {"q": None, "k": None, "v": "s", "o": "x"}


@pytest.mark.parametrize("gemm", ["Gemm<alpha = 0.5>(r, a, b)", "Gemm<beta = 0.5>(r, a, b)"])
def test_a_bias_that_is_scaled_is_left_alone(gemm: str):
    (layer,) = (x for x in linear_layers(block(BLOCK.replace("Gemm(r, a, b)", gemm))) if x.output.name == "v")
    assert bias_of(layer) is None


def test_a_shift_is_added():
    (layer,) = (x for x in linear_layers(block()) if x.output.name == "v")
    bias = bias_of(layer)
    assert bias is not None
    shift_bias(bias, np.ones(4, np.float32))
    assert bias.const_value is not None
    assert bias.const_value.numpy().tolist() == [2, 3, 4, 5]
