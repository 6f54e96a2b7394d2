"""What fits a model's inputs, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from sparsify import data, runtime
from sparsify.data import TensorSpec
from sparsify.errors import InputError

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
two (int64[batch, length] ids, float[batch, length, 4] x, string[batch] tag) => (float[batch, length, 4] y)
<float[4] w = {1, 2, 3, 4}>
{ f = Cast<to = 1>(ids)
  axis = Constant<value = int64[1] {2}>()
  u = Unsqueeze(f, axis)
  p = Mul(x, u)
  y = Mul(p, w) }"""


@pytest.fixture
def inputs() -> list[ir.Value]:
    return list(ir.from_onnx_text(MODEL).graph.inputs)


def feed(batch: int = 2, length: int = 3) -> data.Feed:
    return {
        "ids": np.zeros((batch, length), np.int64),
        "x": np.zeros((batch, length, 4), np.float32),
        "tag": np.array(["a"] * batch),
    }


def test_accepts_what_fits_and_ignores_other_keys(inputs: list[ir.Value]):
    data.check([feed(), feed(5, 1) | {"label": np.zeros(3)}], inputs)


def test_specs_are_the_same_from_ir_and_from_a_session():
    model = ir.from_onnx_text(MODEL)
    expected = (
        TensorSpec("ids", "int64", ("batch", "length")),
        TensorSpec("x", "float32", ("batch", "length", 4)),
        TensorSpec("tag", "str", ("batch",)),
    )
    assert data.specs_of(model.graph.inputs) == expected
    assert data.specs_of(runtime.session(model).get_inputs()) == expected
    assert data.specs_of(expected) == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ids": None}, "input `ids` is missing, expected int64 [batch, length]"),
        ({"x": np.zeros((2, 3, 4))}, "input `x` is float64, expected float32 [batch, length, 4]"),
        ({"ids": np.zeros((2, 3), np.int32)}, "input `ids` is int32, expected int64 [batch, length]"),
        ({"tag": np.zeros(2)}, "input `tag` is float64, expected str [batch]"),
        ({"ids": np.zeros(2, np.int64)}, "input `ids` has shape [2], expected int64 [batch, length]"),
        ({"x": np.zeros((2, 3, 5), np.float32)}, "input `x` has shape [2, 3, 5], expected float32 [batch, length, 4]"),
        ({"x": np.zeros((2, 7, 4), np.float32)}, "dimension `length` is 3 in `ids` but 7 in `x`"),
    ],
)
def test_says_which_input_is_wrong_and_what_was_expected(inputs: list[ir.Value], change: dict, words: str):
    given_feed = {k: v for k, v in (feed() | change).items() if v is not None}
    with pytest.raises(InputError) as error:
        data.check([feed(), given_feed], inputs)
    assert error.value.what == words
    assert error.value.where == "feed 1"
    assert error.value.hint


def test_names_the_file_and_the_key_that_was_meant(tmp_path: Path, inputs: list[ir.Value]):
    np.savez(tmp_path / "a.npz", **{"idz" if k == "ids" else k: v for k, v in feed().items()})
    with pytest.raises(InputError) as error:
        data.check(data.load(tmp_path), inputs)
    assert error.value.where == str(tmp_path / "a.npz")
    assert error.value.hint == "did you mean `idz`?"


def test_refuses_no_feeds_at_all(inputs: list[ir.Value]):
    with pytest.raises(InputError, match="no feeds"):
        data.check([], inputs)


@pytest.mark.parametrize(
    ("shapes", "arrays", "expected"),
    [
        ([("n", 3), ("n",)], [(5, 3), (5,)], 5),
        ([(None, 3), ("n",)], [(5, 3), (5,)], 5),
        ([(8, 3)], [(8, 3)], 8),
        ([("n", 3), ("m",)], [(5, 3), (5,)], None),  # two symbols are two dimensions even when equal
        ([("n", 3), ("n",)], [(5, 3), ()], None),
        ([(None,), (None,)], [(5,), (4,)], None),
    ],
)
def test_counts_samples_along_a_shared_leading_dimension(shapes, arrays, expected):
    specs = [TensorSpec(f"i{i}", "float32", s) for i, s in enumerate(shapes)]
    assert data.rows({f"i{i}": np.zeros(s, np.float32) for i, s in enumerate(arrays)}, specs) == expected
