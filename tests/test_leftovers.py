"""Nothing is lost of what no pass touches: unknown fields, metadata and doc strings, through every level."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import onnx
import onnx.parser
import pytest
from google.protobuf.internal.encoder import _VarintBytes  # type: ignore[import-untyped, unused-ignore]
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsify import leftovers, modelio
from sparsify.pipeline import levels

REWRITTEN = "layer"  # the node that passes may rewrite

MODEL = """<ir_version: 10, opset_import: ["" : 17, "f" : 1, "nobody.uses.this" : 3], producer_name: "p">
    g (float[2,4] x, bool c) => (float[2,4] z)
    <float[4,4] w = {1, 0, 0, 2, 0, 0, 3, 0, 0, 0, 4, 0, 0, 5, 0, 0}, float[2,4] q, float[2,4] y> {
      q = f.h(x)
      y = If(c) <then_branch = t () => (float[2,4] a) { a = Tanh(x) },
                else_branch = e () => (float[2,4] b) { b = Sigmoid(x) }>
      s = Add(y, q)
      z = MatMul(s, w)
    }
    <domain: "f", opset_import: ["" : 17]> h (i) => (o) { o = Softplus(i) }"""


def parts(message: Any) -> Iterator[Any]:
    """`message` and all those inside it."""
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in [value] if hasattr(value, "DESCRIPTOR") else value:
                yield from parts(inner)


def build() -> onnx.ModelProto:
    model: onnx.ModelProto = onnx.parser.parse_model(MODEL)
    model.graph.node[-1].name = REWRITTEN
    return model


def _mark(message: Any, text: str, tag: int) -> None:
    """A doc string, a denotation and metadata, where there is a place for them, and a field that nobody knows."""
    for name in ("doc_string", "denotation"):
        if name in message.DESCRIPTOR.fields_by_name:
            setattr(message, name, text)
    if "metadata_props" in message.DESCRIPTOR.fields_by_name:
        message.metadata_props.add(key=f"k{text}", value=text)
    payload = text.encode()
    message.MergeFromString(_VarintBytes(tag << 3 | 2) + _VarintBytes(len(payload)) + payload)


def _kept(model: onnx.ModelProto) -> dict[str, list[bytes]]:
    """What no pass has a reason to touch, as bytes."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for part in list(parts(copy)):
        for field, value in part.ListFields():
            if isinstance(value, str) and value == "":
                part.ClearField(field.name)  # written and empty or not written: it means the same
    model, graph = copy, copy.graph
    inputs = [value for value in graph.value_info if value.name in ("q", "y")]
    found = {
        "nodes": [node for node in graph.node if node.name != REWRITTEN and node.domain != "ai.sparsify"],
        "values": [*graph.input, *graph.output, *sorted(inputs, key=lambda value: value.name)],
        "functions": [f for f in model.functions if f.domain == "f"],
        "opsets": [o for o in model.opset_import if o.domain in ("f", "nobody.uses.this")],
        "metadata": [*graph.metadata_props, *model.metadata_props],
    }
    texts = [f"{model.doc_string}|{graph.doc_string}|{model.producer_name}".encode()]
    return {"texts": texts} | {k: [m.SerializeToString(deterministic=True) for m in v] for k, v in found.items()}


def _passes(level: int) -> list[Any]:
    """Those of a level, without measuring: what they do is to depend on nothing but the model."""
    passes = levels.level(level)
    return [dataclasses.replace(p, min_speedup=0.0) if hasattr(p, "min_speedup") else p for p in passes]


@settings(max_examples=25)
@given(
    chosen=st.sets(st.integers(0, 200), max_size=40),
    text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20),
    tag=st.integers(1000, 2**20),
    level=st.integers(0, 3),
)
def test_every_level_keeps_what_it_does_not_touch(chosen: set[int], text: str, tag: int, level: int) -> None:
    proto = build()
    messages = list(parts(proto))
    for number in {number % len(messages) for number in chosen}:
        message = messages[number]
        if not isinstance(message, onnx.StringStringEntryProto):  # onnx_ir makes a dictionary of them
            _mark(message, text, tag)
    before, rest = _kept(proto), leftovers.collect(proto)
    model = modelio.load(proto)
    for one in _passes(level):
        one(model)
    written = modelio.to_proto(model)
    assert any(node.domain == "ai.sparsify" for node in written.graph.node) == (level > 0)
    assert _kept(written) == before
    gone = [place for place in rest.keys() - leftovers.collect(written).keys() if "MatMul" not in str(place)]
    assert not [place for place in gone if ("value_info", "w") not in place]


def test_training_information_is_kept() -> None:
    proto = build()
    proto.training_info.add().initialization.node.add(op_type="Relu", input=["x"], output=["t"])
    written = modelio.to_proto(modelio.load(proto))
    assert list(written.training_info) == list(proto.training_info)


def test_metadata_of_a_weight_is_written_once() -> None:
    proto = build()
    proto.graph.initializer[0].metadata_props.add(key="k", value="v")
    again = modelio.to_proto(modelio.load(modelio.to_proto(modelio.load(proto))))
    assert list(again.graph.initializer) == list(proto.graph.initializer)


@pytest.mark.parametrize("limit", [modelio.INLINE_LIMIT, 0])
def test_files_keep_it_too(tmp_path: Any, limit: int) -> None:
    proto = build()
    _mark(proto.graph.node[2], "kept", 1000)
    modelio.save(modelio.load(proto), tmp_path / "out.onnx", limit=limit)
    assert _kept(onnx.load(tmp_path / "out.onnx")) == _kept(proto)
