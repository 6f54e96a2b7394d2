"""Feeds: what is read, what is refused with which words, and how sets are divided."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsify import data, runtime
from sparsify.data import TensorSpec
from sparsify.errors import ExitStatus, InputError

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


def test_reads_one_file_as_one_feed(tmp_path: Path):
    np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.eye(2))
    (found,) = data.load(tmp_path / "a.npz")
    assert found.keys() == {"x", "y"}
    assert found["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("spec", ["", "*.npz", "b*.npz"])
def test_reads_folders_and_globs_in_order_of_names(tmp_path: Path, spec: str):
    for name in ("b2", "b1", "a"):
        np.savez(tmp_path / f"{name}.npz", x=np.array(name))
    (tmp_path / "notes.txt").write_text("not data")
    names = [str(f["x"]) for f in data.load(tmp_path / spec)]
    assert names == (["b1", "b2"] if spec.startswith("b") else ["a", "b1", "b2"])


def test_refuses_pickles_rather_than_running_them(tmp_path: Path):
    np.savez(tmp_path / "p.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match=r"key `x` cannot be read") as error:
        data.load(tmp_path / "p.npz")
    assert error.value.where == str(tmp_path / "p.npz")


def truncated(path: Path) -> None:
    np.savez_compressed(path, x=np.random.default_rng(0).random(1000))
    path.write_bytes(path.read_bytes()[:-1000])


def damaged(path: Path) -> None:
    np.savez(path, x=np.zeros(1000))
    content = bytearray(path.read_bytes())
    content[300] ^= 255  # inside the array: the checksum does not match
    path.write_bytes(content)


@pytest.mark.parametrize(
    "write",
    [
        truncated,
        damaged,
        lambda p: p.write_text("no zip"),
        lambda p: p.write_bytes(b""),
        lambda p: np.save(p.with_suffix(".npy"), np.zeros(2)) or p.with_suffix(".npy").rename(p),
    ],
)
def test_refuses_files_that_are_no_archives_of_arrays(tmp_path: Path, write):
    path = tmp_path / "bad.npz"
    write(path)
    with pytest.raises(InputError) as error:
        data.load(path)
    assert error.value.status is ExitStatus.BAD_INPUT
    assert error.value.where == str(path)
    assert "numpy.savez" in error.value.hint


@pytest.mark.parametrize("spec", ["missing.npz", ".", "*.npz"])
def test_refuses_where_nothing_is(tmp_path: Path, spec: str):
    with pytest.raises(InputError):
        data.load(tmp_path / spec)


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


@given(st.lists(st.integers(0, 30), min_size=2, max_size=40), st.integers(0, 5), st.booleans())
def test_halves_share_no_content_and_lose_nothing(values: list[int], seed: int, batched: bool):
    feeds = [{"x": np.array(values)}] if batched else [{"x": np.array([v])} for v in values]
    if len(set(values)) == 1:
        with pytest.raises(InputError, match="all samples are equal"):
            data.split(feeds, seed)
        return
    first, second = ([int(v) for f in side for v in f["x"]] for side in data.split(feeds, seed))
    assert sorted(first + second) == sorted(values)
    assert first
    assert second
    assert not set(first) & set(second)
    again = data.split(feeds, seed)
    assert [int(v) for f in again[0] for v in f["x"]] == first


@pytest.mark.parametrize(
    ("shape", "spec"), [((1, 4), ("n", 4)), ((6, 4), (6, 4)), ((6, 4), None)], ids=["one row", "fixed", "two inputs"]
)
def test_refuses_to_divide_a_single_sample(shape: tuple[int, int], spec):
    given_feed = {"x": np.arange(24.0).reshape(6, 4)[: shape[0]]}
    specs = [TensorSpec("x", "float64", spec)]
    if spec is None:
        given_feed["scalar"] = np.array(1.0)
        specs.append(TensorSpec("scalar", "float64", ()))
    with pytest.raises(InputError, match="one sample cannot serve both"):
        data.split([given_feed], 0, specs)
