"""Invented inputs fit the model and are safe."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsify import data, runtime
from sparsify.data import TensorSpec
from sparsify.errors import InputError

BERT = [
    TensorSpec("input_ids", "int64", ("batch", "sequence")),
    TensorSpec("attention_mask", "int64", ("batch", "sequence")),
    TensorSpec("token_type_ids", "int64", ("batch", "sequence")),
]


def test_a_text_model_gets_one_text():
    feed = runtime.synthesize(BERT)
    assert {a.shape for a in feed.values()} == {(1, 128)}
    assert set(np.unique(feed["input_ids"])) == {0, 1}
    assert feed["attention_mask"].all()
    assert not feed["token_type_ids"].any()


def test_sizes_may_be_given():
    feed = runtime.synthesize(BERT, sizes={"batch": 8, "sequence": 16})
    assert {a.shape for a in feed.values()} == {(8, 16)}


def test_a_cache_is_empty_and_sums_of_symbols_agree():
    specs = [
        TensorSpec("ids", "int64", ("n", "sequence")),
        TensorSpec("past.0", "float16", ("n", 2, "past_sequence", 8)),
        TensorSpec("attention_mask", "int64", ("n", "past_sequence + sequence")),
    ]
    feed = runtime.synthesize(specs)
    assert [feed[s.name].shape for s in specs] == [(1, 128), (1, 2, 0, 8), (1, 128)]
    assert feed["past.0"].dtype == np.float16


def test_a_picture_has_the_usual_size():
    assert runtime.synthesize([TensorSpec("x", "float32", (None, 3, None, None))])["x"].shape == (1, 3, 224, 224)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["float32", "float64", "float16", "int64", "int32", "uint8", "int8", "bool"]),
            st.lists(st.none() | st.integers(0, 3) | st.sampled_from(["a", "b"]), max_size=3),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_what_is_invented_passes_the_check(inputs):
    specs = [TensorSpec(f"i{i}", dtype, tuple(shape)) for i, (dtype, shape) in enumerate(inputs)]
    feed = runtime.synthesize(specs, sizes={"a": 2})
    data.check([feed], specs)
    again = runtime.synthesize(specs, sizes={"a": 2})
    assert all(np.array_equal(feed[k], again[k]) for k in feed)
    for array in feed.values():
        assert array.dtype.kind == "f" or set(np.unique(array)) <= {0, 1}


@pytest.mark.parametrize(
    "spec",
    [
        TensorSpec("s", "str", (1,)),
        TensorSpec("s", None, (1,)),
        TensorSpec("s", "float32", None),
        TensorSpec("s", "seq(tensor(float))", ()),
        TensorSpec("s", "nonsense", ()),
    ],
)
def test_refuses_what_cannot_be_invented(spec: TensorSpec):
    with pytest.raises(InputError, match="`s`") as error:
        runtime.synthesize([spec])
    assert "--data" in error.value.hint
