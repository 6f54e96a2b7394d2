"""Looking inside a model does not change it and sees what it computes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from sparsify import runtime

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
mlp (float[M,4] x, bool b) => (float[M,N] y)
<float[4,2] w = {8, 1, 7, 2, 6, 3, 5, 4}>
{ h = MatMul(x, w)
  r = Relu(h)
  y = If(b) <then_branch = t () => (float[M,N] s) { inner = Neg(r)
 s = Neg(inner) },
             else_branch = e () => (float[M,N] u) { u = Neg(h) }>
}"""


def feed(rows: int) -> dict[str, np.ndarray]:
    return {"x": np.arange(rows * 4, dtype=np.float32).reshape(rows, 4) - 3, "b": np.array(True)}


@pytest.fixture
def model() -> ir.Model:
    return ir.from_onnx_text(MODEL)


def text(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


def test_observes_shapes_of_inputs_weights_values_and_outputs(model: ir.Model):
    before = text(model)
    found = runtime.observe_rows(model, feed(3), ["x", "w", "h", "y", "b", "inner", "nothing"])
    assert found == {"x": (3, 4), "w": (4, 2), "h": (3, 2), "y": (3, 2), "b": ()}
    assert runtime.observe_rows(model, feed(3), []) == {}
    assert text(model) == before


def test_captures_values_feed_by_feed(model: ir.Model):
    before = text(model)
    weight = model.graph.initializers["w"].const_value.numpy()
    feeds = [feed(1), feed(5)]
    consumed = 0

    def stream():
        nonlocal consumed
        for f in feeds:
            consumed += 1
            yield f

    for index, found in enumerate(runtime.capture(model, stream(), ["h", "x", "inner"])):
        assert consumed == index + 1  # no feed is read ahead
        assert found.keys() == {"h", "x"}
        # Small integers: float32 is exact.
        assert found["h"].tolist() == (feeds[index]["x"] @ weight).tolist()
        assert found["x"] is feeds[index]["x"]
    assert consumed == 2
    assert text(model) == before


def test_captures_nothing_that_is_not_there(model: ir.Model):
    assert list(runtime.capture(model, [feed(1)], ["nothing"])) == [{}]


def test_lists_what_nodes_of_the_main_graph_compute(model: ir.Model):
    with runtime.probe(model) as inside:
        assert inside.values == ["h", "r", "y"]
