"""Running a model in stages gives what running it at once gives, and lets what comes be edited."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_ir as ir
import pytest

from sparsify import runtime
from sparsify.runtime import Stages

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[M,4] x, bool b) => (float[M,2] y)
<float[4,4] w = {1,2,3,4, 5,6,7,8, 1,0,1,0, 2,2,2,2}, float[4,4] v = {1,0,0,1, 0,1,1,0, 1,1,0,0, 0,0,1,1},
 float[4,2] u = {1,2,3,4,5,6,7,8}>
{ a = MatMul(x, w)
  r = Relu(a)
  c = MatMul(r, v)
  s = If(b) <then_branch = t () => (float[M,4] p) { p = Add(c, a) },
                 else_branch = e () => (float[M,4] q) { q = Neg(r) }>
  z = Add(s, x)
  y = MatMul(z, u)
}"""


@pytest.fixture
def model() -> ir.Model:
    return ir.from_onnx_text(MODEL)


def feeds() -> list[dict[str, np.ndarray]]:
    return [{"x": np.arange(n * 4, dtype=np.float32).reshape(n, 4) - 5, "b": np.array(n > 2)} for n in (1, 3, 5)]


@pytest.mark.parametrize("memory", [2**30, 0], ids=["memory", "scratch"])
def test_stages_see_what_the_whole_model_computes(model: ir.Model, memory: int):
    values = ["x", "r", "c", "z", "y"]
    whole = list(runtime.capture(model, feeds(), values))
    stages = Stages(model, feeds(), memory=memory)
    for value in values:
        for live, expected in zip(stages.advance(value), whole, strict=True):
            assert live[value].tolist() == expected[value].tolist()  # small integers: exact
    stages.close()


def test_what_has_not_run_may_change(model: ir.Model):
    stages = Stages(model, feeds())
    assert len(list(stages.advance("r"))) == 3
    model.graph.initializers["v"].const_value = ir.tensor(np.zeros((4, 4), np.float32), name="v")
    model.graph.initializers["w"].const_value = ir.tensor(np.zeros((4, 4), np.float32), name="w")  # ran already
    changed, ran = (
        list(stages.advance("s")),
        [f["x"] @ np.array([[1, 2, 3, 4], [5, 6, 7, 8], [1, 0, 1, 0], [2] * 4]) for f in feeds()],
    )
    assert (changed[1]["s"] == ran[1]).all()
    assert (changed[0]["s"] == -np.maximum(ran[0], 0)).all()


def test_only_what_the_rest_reads_is_kept(model: ir.Model):
    stages = Stages(model, feeds())
    assert {*next(iter([*stages.advance("z")]))} == {"z"}
    with pytest.raises(KeyError):
        list(stages.advance("a"))
    with pytest.raises(KeyError):
        list(stages.advance("nothing"))
    assert next(iter(stages.advance("z")))["z"].shape == (1, 4)


def test_what_was_begun_is_what_is_asked_for(model: ir.Model):
    plain, ahead = Stages(model, feeds()), Stages(model, feeds())
    list(plain.advance("r")), list(ahead.advance("r"))
    ahead.begin("z")
    for one, other in zip(plain.advance("z"), ahead.advance("z"), strict=True):
        assert one["z"].tolist() == other["z"].tolist()
    ahead.begin("y")
    ahead.close()  # while it runs


def test_feeds_may_come_in_any_order_and_in_threads(model: ir.Model):
    expected = [live["z"].tolist() for live in Stages(model, feeds()).advance("z")]
    stages = Stages(model, feeds())
    list(stages.advance("r"))
    stages.begin("z")
    step = stages.towards("z")
    with ThreadPoolExecutor(3) as pool:
        found = dict(zip((2, 0, 1), pool.map(step, (2, 0, 1)), strict=True))
    assert [found[number]["z"].tolist() for number in range(3)] == expected
