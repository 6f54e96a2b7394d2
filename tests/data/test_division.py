"""How sets are divided, and when two are the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsify import data
from sparsify.data import TensorSpec
from sparsify.errors import InputError


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


@given(st.integers(0, 2**63 - 1))
def test_a_digest_is_of_content_not_of_how_it_lies_in_memory(seed: int):
    x = np.random.default_rng(seed).integers(0, 9, (3, 4))
    one = data.digest([{"a": x, "b": np.array(["é", "b"])}])
    assert one == data.digest([{"b": np.array(["é", "b"]), "a": np.asfortranarray(x)}])
    assert one == data.digest([{"b": np.array(["é", "b"]), "a": np.repeat(x, 2, axis=1)[:, ::2]}])
    x[1, 2] += 1
    assert one != data.digest([{"a": x, "b": np.array(["é", "b"])}])


@pytest.mark.parametrize(
    "other",
    [
        [{"x": np.zeros((2, 3), np.int64)}],
        [{"x": np.zeros((3, 2), np.float64)}],
        [{"y": np.zeros((2, 3), np.float64)}],
        [{"x": np.zeros((2, 3), np.float64)}] * 2,
        [{"x": np.zeros((2, 3), ">f8")}],
        [],
    ],
    ids=["type", "shape", "name", "twice", "byte order", "nothing"],
)
def test_a_digest_tells_sets_apart(other: list[data.Feed]):
    assert data.digest([{"x": np.zeros((2, 3), np.float64)}]) != data.digest(other)


def test_a_digest_minds_the_order_of_feeds():
    feeds = [{"x": np.array(1)}, {"x": np.array(2)}]
    assert data.digest(feeds) != data.digest(feeds[::-1])


def test_a_digest_of_strings_and_of_what_has_no_elements():
    assert data.digest([{"x": np.array(["a", "bcd"])}]) != data.digest([{"x": np.array(["abc", "d"])}])
    assert data.digest([{"x": np.zeros((0, 4))}]) != data.digest([{"x": np.zeros((4, 0))}])
