"""Invented inputs fit the model and are safe."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsify import data, runtime
from sparsify.data import TensorSpec
from sparsify.errors import InputError
from sparsify.runtime.vocabulary import vocabulary

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


EMBEDDED = """<ir_version: 8, opset_import: ["" : 17]>
text (int64[n,t] input_ids, int64[n,t] position_ids, int64[n,t] token_type_ids, int64[n,t] other) => (float[n,t,2] y)
{ flat = Cast<to = 6>(input_ids)
  a = Gather(words, flat)
  b = Gather<axis = 0>(positions, position_ids)
  c = Gather(types, token_type_ids)
  ab = Add(a, b)
  abc = Add(ab, c)
  f = Cast<to = 1>(other)
  axis = Constant<value = int64[1] {2}>()
  u = Unsqueeze(f, axis)
  y = Add(abc, u) }"""


def test_ids_stay_inside_the_embedding_that_they_look_up():
    model = onnx.parser.parse_model(EMBEDDED)
    rng = np.random.default_rng(0)
    for name, entries in (("words", 50), ("positions", 9), ("types", 2)):
        table = rng.standard_normal((entries, 2), np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(table, name))
    inputs = ir.from_proto(model).graph.inputs
    assert [vocabulary(value) for value in inputs] == [50, 9, 2, None]
    feed = runtime.synthesize(inputs, seed=3, sizes={"n": 4})
    ids = feed["input_ids"]
    assert 0 <= ids.min() < 5
    assert 45 < ids.max() < 50  # 512 draws: the chance that none falls there is below 1e-21
    assert feed["position_ids"][0, :11].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1]
    assert not feed["token_type_ids"].any()
    assert set(np.unique(feed["other"])) <= {0, 1}
    runtime.run(runtime.session(model), feed)


def test_a_quantised_or_fused_embedding_counts_too():
    text = """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    g (int64[n,t] a, int32[n,t] b, int32[n,t] s) => (float[n,t,4] y, float[n,t,4] z, int32[n] m)
    <int8[7,4] q = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}, float scale = {0.1},
     float[3,4] w = {1,1,1,1,1,1,1,1,1,1,1,1}, float[8,4] p, float[2,4] k = {1,1,1,1,1,1,1,1}, float[4] g1 = {1,1,1,1}>
    { table = DequantizeLinear(q, scale)
      y = Gather(table, a)
      z, m = com.microsoft.EmbedLayerNormalization(b, s, w, p, k, g1, g1) }"""
    inputs = ir.from_proto(onnx.parser.parse_model(text)).graph.inputs
    assert [vocabulary(value) for value in inputs] == [7, 3, 2]
