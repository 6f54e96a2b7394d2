"""What follows from declared dimensions becomes constant, and nothing else does."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsify import modelio, runtime
from sparsify.dimensions import FoldDimensions
from sparsify.passes.cleanup import Cleanup

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[B,3,H,8] x) => ({output} y)'
INDICES = "<int64 zero = {0}, int64 two = {2}, int64 last = {-1}, int64[2] ends = {1, 3}, int64[1] from = {1}, int64[1] to = {4}, int64[1] by = {2}, int64[1] none = {0}>"  # noqa: E501


def folded(body: str, output: str) -> tuple[ir.Model, bool]:
    model = ir.from_onnx_text(f"{HEAD.replace('{output}', output)} {INDICES} {{ {body} }}")
    modified = FoldDimensions()(model).modified
    return model, modified


def answer(model: ir.Model, batch: int, height: int) -> np.ndarray:
    feed = {"x": np.arange(batch * 3 * height * 8, dtype=np.float32).reshape(batch, 3, height, 8)}
    return runtime.run(runtime.session(model), feed)["y"]


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ("s = Shape(x) d = Gather(s, last) y = Mul(d, d)", "int64"),
        ("s = Shape(x) d = Gather(s, ends) y = Mul(d, d)", "int64[2]"),
        ("s = Shape(x) d = Slice(s, from, to, none, by) y = Mul(d, d)", "int64[2]"),
        ("s = Shape<start: int = -1>(x) y = Mul(s, s)", "int64[1]"),
        ("s = Shape<start: int = 1, end: int = 2>(x) y = Mul(s, s)", "int64[1]"),
        ("t = Transpose<perm = [3, 0, 1, 2]>(x) s = Shape(t) d = Gather(s, zero) y = Mul(d, d)", "int64"),
    ],
)
def test_numbers_become_constants(body: str, output: str) -> None:
    whole = ir.from_onnx_text(f"{HEAD.replace('{output}', output)} {INDICES} {{ {body} }}")
    model, modified = folded(body, output)
    assert modified
    assert all(value.is_initializer() for value in model.graph.outputs[0].producer().inputs)  # type: ignore[union-attr]
    assert np.array_equal(answer(model, 2, 5), answer(whole, 2, 5))


@pytest.mark.parametrize(
    "body",
    [
        "s = Shape(x) d = Gather(s, zero) y = Mul(d, d)",
        "s = Shape(x) d = Gather(s, two) y = Mul(d, d)",
        "s = Shape(x) y = Mul(s, s)",
        "s = Shape(x) e = Gather(s, zero) r = Unsqueeze(e, none) t = Expand(x, s) u = Shape(t) d = Gather(u, two) y = Mul(d, d)",  # noqa: E501
    ],
)
def test_names_stay(body: str) -> None:
    model, modified = folded(body, "int64[N]" if body.endswith("y = Mul(s, s)") else "int64")
    assert not modified
    assert answer(model, 2, 5).size
    assert not np.array_equal(answer(model, 2, 5), answer(model, 4, 6))


def test_what_a_model_says_of_its_own_values_is_not_believed() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[B,3] x) => (int64 y) <int64 zero = {0}, float[1,3] t>
        { t = Relu(x) s = Shape(t) d = Gather(s, zero) y = Mul(d, d) }"""
    )
    assert model.graph[0].outputs[0].shape == ir.Shape((1, 3))
    assert not FoldDimensions()(model).modified


def test_an_output_stays_an_output() -> None:
    model, modified = folded("s = Shape(x) y = Gather(s, last)", "int64")
    assert not modified
    assert answer(model, 1, 1) == 8


@given(st.integers(1, 4), st.integers(1, 6), st.integers(-5, 5), st.integers(-5, 5), st.integers(-2, 2))
def test_slices_are_those_of_the_runtime(batch: int, height: int, start: int, stop: int, step: int) -> None:
    if step == 0:
        return
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g (float[2,3,5,8] x) => (int64[N] y)
        <int64[1] a = {{{start}}}, int64[1] b = {{{stop}}}, int64[1] c = {{0}}, int64[1] d = {{{step}}}>
        {{ s = Shape(x) t = Slice(s, a, b, c, d) y = Mul(t, t) }}"""
    whole, model = ir.from_onnx_text(text), ir.from_onnx_text(text)
    FoldDimensions()(model)
    feed = {"x": np.zeros((2, 3, 5, 8), np.float32)}
    expected = runtime.run(runtime.session(whole), feed)["y"]
    assert np.array_equal(runtime.run(runtime.session(model), feed)["y"], expected)


def test_cleanup_leaves_a_resize_of_constants_to_the_runtime() -> None:
    model = modelio.load(
        ir.from_onnx_text(
            """<ir_version: 8, opset_import: ["" : 17]> g (float[B,3,8,8] x) => (float[B,1,8,8] y)
            <int64 two = {2}, int64[1] none = {0}, float[1,1,2,2] w = {1, 2, 3, 4}, int64[2] front = {1, 1}>
            { s = Shape(x) d = Gather(s, two) e = Unsqueeze(d, none) z = Concat<axis = 0>(front, e, e)
              r = Resize<mode = "cubic">(w, , , z) m = ReduceMean<axes = [1]>(x) y = Mul(m, r) }"""
        )
    )
    Cleanup()(model)
    resize = next(node for node in model.graph if node.op_type == "Resize")
    assert resize.inputs[3].is_initializer()  # type: ignore[union-attr]
    assert not [node for node in model.graph if node.op_type in ("Shape", "Gather", "Concat")]
