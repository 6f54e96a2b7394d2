"""What a stranger may send: each is refused with exit status 3 and one sentence, and nothing is read or written."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from google.protobuf.internal.encoder import _VarintBytes  # type: ignore[import-untyped, unused-ignore]
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper

import sparsify
from sparsify import contained, limits, modelio
from sparsify.cli import main
from sparsify.errors import ExitStatus, InputError

FLOATS = 64  # of the weight [8, 8]


def model(nodes: list[onnx.NodeProto] | None = None) -> ModelProto:
    """y = x w, or `nodes` between x and y."""
    w = onnx.numpy_helper.from_array(np.ones((8, 8), np.float32), "w")
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["M", 8]) for n in "xy")
    graph = helper.make_graph(nodes or [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")], "g", [x], [y], [w])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def external(location: str = "w.data", **keys: str) -> ModelProto:
    """The weight in a file; `w.data` holds it."""
    proto = model()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **keys}.items():
        tensor.external_data.add(key=key, value=value)
    return proto


def _field(number: int, payload: bytes) -> bytes:
    return _VarintBytes(number << 3 | 2) + _VarintBytes(len(payload)) + payload


def _nested(depth: int) -> bytes:
    """If in If: written byte by byte, protobuf itself would not."""
    name = AttributeProto(name="then_branch", type=AttributeProto.GRAPH).SerializeToString()
    graph = GraphProto(name="b").SerializeToString()
    for _ in range(depth):
        graph = _field(1, _field(4, b"If") + _field(5, name + _field(6, graph)))  # graph > node > attribute > graph
    return model().SerializeToString() + _field(7, graph)


def _many_nodes() -> bytes:
    """A million equal nodes: protobuf adds up the graphs of a message."""
    node = GraphProto(node=[_identity("x", "unused")]).SerializeToString() * 10**6
    return model().SerializeToString() + _field(7, node)


def _functions(*bodies: tuple[str, list[str]]) -> ModelProto:
    """Functions by name and the functions that each calls."""
    proto = model([helper.make_node(bodies[0][0], ["x"], ["y"], domain="d")])
    proto.opset_import.append(helper.make_opsetid("d", 1))
    for name, calls in bodies:
        nodes = [helper.make_node(c, ["a"], [f"{i}"], domain="d") for i, c in enumerate(calls)]
        nodes.append(helper.make_node("Identity", ["a"], ["b"]))
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
        proto.functions.append(helper.make_function("d", name, ["a"], ["b"], nodes, imports))
    return proto


def _laughs() -> ModelProto:
    """40 functions that each call the next one twice: 2^40 nodes."""
    return _functions(*[(f"f{i}", [f"f{i + 1}"] * 2 if i < 39 else []) for i in range(40)])


def _changed(change: Callable[[GraphProto], object]) -> ModelProto:
    proto = model()
    change(proto.graph)
    return proto


def _initializer(**fields: object) -> ModelProto:
    proto = model()
    tensor = proto.graph.initializer[0]
    for name, value in fields.items():
        tensor.ClearField(name)
        getattr(tensor, name).extend(value) if name == "dims" else setattr(tensor, name, value)
    return proto


def _sparse(dims: list[int], indices: list[int]) -> ModelProto:
    proto = model()
    del proto.graph.initializer[:]
    values = onnx.numpy_helper.from_array(np.ones(len(indices), np.float32), "w")
    where = onnx.numpy_helper.from_array(np.array(indices, np.int64), "i")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, where, dims))
    return proto


def _spoil(graph: GraphProto) -> None:
    graph.node[0].input[0] = "spoilt"


def _unicode_sparse() -> bytes:
    """Its name alone is spoilt, which nothing but the making of a dense one reads."""
    proto = _sparse([8, 8], [1])
    proto.graph.sparse_initializer[0].values.name = "spoilt"
    return bytes(proto.SerializeToString()).replace(b"spoilt", b"\xb6poilt")


def _external_attribute() -> ModelProto:
    """A data file where nothing would look for the policy: inside a list of tensors of an attribute."""
    proto = model()
    attribute = AttributeProto(name="hidden", type=AttributeProto.TENSORS)
    attribute.tensors.append(external("/etc/hostname").graph.initializer[0])
    proto.graph.node[0].attribute.append(attribute)
    return proto


def _identity(read: str, made: str) -> onnx.NodeProto:
    return helper.make_node("Identity", [read], [made], name=f"make {made}")


def _enormous_input(graph: GraphProto) -> None:
    for size in (10**6, 10**6):
        graph.input[0].type.tensor_type.shape.dim.add(dim_value=size)


def _constant_bomb() -> ModelProto:
    shape = onnx.numpy_helper.from_array(np.array([10**12], np.int64))
    nodes = [
        helper.make_node("Constant", [], ["s"], value=shape),
        helper.make_node("ConstantOfShape", ["s"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["x", "sum"], ["y"]),
    ]
    return model(nodes)


CASES: dict[str, tuple[Callable[[], ModelProto | bytes], str]] = {
    "external: climbs": (lambda: external("../secret"), "outside the model's folder"),
    "external: climbs later": (lambda: external("a/../../secret"), "outside the model's folder"),
    "external: climbs within the folder": (lambda: external("a/../w.data"), "outside the model's folder"),
    "external: absolute": (lambda: external("/etc/hostname"), "outside the model's folder"),
    "external: absolute on Windows": (lambda: external("C:\\secret"), "outside the model's folder"),
    "external: share on Windows": (lambda: external("\\\\host\\share"), "outside the model's folder"),
    "external: link out": (lambda: external("out"), "outside the model's folder"),
    "external: folder linked out": (lambda: external("up/secret"), "outside the model's folder"),
    "external: hard link": (lambda: external("hard"), "hard link"),
    "external: folder": (lambda: external("folder"), "no regular file"),
    "external: pipe": (lambda: external("pipe"), "no regular file"),
    "external: device": (lambda: external("zero"), "outside the model's folder"),
    "external: links in a circle": (lambda: external("circle"), "is missing"),
    "external: missing": (lambda: external("absent"), "is missing"),
    "external: no location": (lambda: external(""), "names no file"),
    "external: NUL": (lambda: external("w.data\0.txt"), "names no file"),
    "external: too long a name": (lambda: external("n" * 5000), "names no file"),
    "external: offset behind the end": (lambda: external(offset="4"), "cut short"),
    "external: negative offset": (lambda: external(offset="-4"), "offset `-4`"),
    "external: offset overflows": (lambda: external(offset=str(2**64)), "offset"),
    "external: offset is no number": (lambda: external(offset="0x10"), "offset"),
    "external: length too small": (lambda: external(length="8"), "8 bytes of external data"),
    "external: length too large": (lambda: external(length=str(2**62)), "bytes of external data"),
    "external: key sets an attribute": (lambda: external(__class__="x"), "odd key"),
    "external: in a list of an attribute": (_external_attribute, "neither weight nor constant"),
    "bomb: 10^12 elements, no data": (lambda: _initializer(dims=[10**6, 10**6]), "does not hold the data"),
    "bomb: 10^12 elements, empty data": (lambda: _initializer(dims=[10**12], raw_data=b""), "does not hold the data"),
    "bomb: overflowing shape": (lambda: _initializer(dims=[2**62, 2**62]), "does not hold the data"),
    "bomb: made by a node": (_constant_bomb, "the value 'big'"),
    "bomb: input of 10^12 elements": (lambda: _changed(_enormous_input), "elements in its input `x`"),
    "bomb: functions that double": (_laughs, "more than 10^12 nodes"),
    "sparse: position outside": (lambda: _sparse([8, 8], [64]), "outside"),
    "sparse: negative position": (lambda: _sparse([8, 8], [-1]), "outside"),
    "shape: negative": (lambda: _initializer(dims=[-8, -8]), "negative dimension"),
    "shape: 1000 dimensions": (lambda: _initializer(dims=[1] * 1000), "1000 dimensions"),
    "data: too little": (lambda: _initializer(raw_data=bytes(4 * FLOATS - 1)), "does not hold the data"),
    "data: too much": (lambda: _initializer(raw_data=bytes(4 * FLOATS + 4)), "does not hold the data"),
    "graph: nested 40 deep": (lambda: _nested(40), "damaged"),
    "graph: 10^6 nodes": (_many_nodes, "1,000,001 nodes, more than 200,000"),
    "graph: cycle": (lambda: model([_identity("b", "a"), _identity("a", "b"), _identity("x", "y")]), "cycle"),
    "graph: reads itself": (lambda: model([_identity("y", "y")]), "cycle"),
    "graph: value twice": (lambda: model([_identity("x", "y"), _identity("w", "y")]), "`y` is defined twice"),
    "graph: input twice": (lambda: _changed(lambda g: g.input.append(g.input[0])), "`x` is defined twice"),
    "graph: initializer twice": (
        lambda: _changed(lambda g: g.initializer.append(g.initializer[0])),
        "`w` is defined twice",
    ),
    "graph: initializer made by a node": (lambda: model([_identity("x", "w"), _identity("w", "y")]), "`w` is both"),
    "graph: undefined value": (lambda: model([_identity("nowhere", "y")]), "nowhere"),
    "function: calls itself": (lambda: _functions(("f", ["f"])), "calls itself"),
    "function: circle": (lambda: _functions(("f", ["g"]), ("g", ["f"])), "calls itself"),
    "function: twice": (lambda: _functions(("f", []), ("f", [])), "same name"),
    "names: control characters": (lambda: model([_identity("\x1b[2J\nerror: no", "y")]), "x1b"),
    "names: no Unicode": (
        lambda: _changed(_spoil).SerializeToString().replace(b"spoilt", b"\xb6poilt"),
        "nothing makes it",
    ),
    "names: no Unicode, sparse": (_unicode_sparse, "utf-8"),
    "file: random": (lambda: bytes(range(256)) * 8, "not an ONNX model"),
    "file: pickle": (lambda: b"\x80\x04\x95\x1a\x00\x00\x00cposix\nsystem\n.", "not an ONNX model"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder with traps in it and a secret beside it."""
    folder = tmp_path / "model"
    folder.mkdir()
    weights = bytes(4 * FLOATS)
    (tmp_path / "secret").write_bytes(weights)
    (folder / "w.data").write_bytes(weights)
    (folder / "a").mkdir()
    (folder / "folder").mkdir()
    if sys.platform != "win32":
        os.mkfifo(folder / "pipe")
        (folder / "out").symlink_to(tmp_path / "secret")
        (folder / "up").symlink_to(tmp_path)
        (folder / "zero").symlink_to("/dev/zero")
        (folder / "circle").symlink_to("circle")
        os.link(tmp_path / "secret", folder / "hard")
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes")
@pytest.mark.parametrize("case", CASES)
def test_is_refused_with_status_3_and_a_sentence(folder: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    make, says = CASES[case]
    made = make()
    path = folder / "evil.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    before = sorted(folder.iterdir())
    assert main(["optimize", str(path), "-o", str(folder / "out.onnx"), "--passes", "cleanup"]) == ExitStatus.BAD_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    sentence = err.split("\n\nhint: ")[0].rstrip("\n")
    assert sentence.startswith("error: ")
    assert "\n" not in sentence
    assert sentence.isprintable()
    assert "bug of ours" not in err
    assert says in sentence
    assert sorted(folder.iterdir()) == before


CRASHES = {
    "crashes on this model": "import os; os.kill(os.getpid(), 11)",
    "needs more than": "import os; os._exit(3)",
    "did not come to an end within 1 s of processor time": "\nwhile True: pass",
    "did not come to an end within 2 s": "import time; time.sleep(60)",
}


@pytest.mark.parametrize("says", CRASHES)
def test_a_crash_of_a_library_is_an_error_of_the_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    path = folder / "model.onnx"
    path.write_bytes(model().SerializeToString())
    monkeypatch.setattr(contained, "_ATTEMPTS", "print('a library', flush=True); " + CRASHES[says])
    monkeypatch.setattr(contained, "DEADLINE_S", 1.0)
    monkeypatch.setattr(contained, "PATIENCE", 60 if "processor" in says else 2)
    with pytest.raises(InputError, match=f"a library {says}"):
        contained.examine(path, 1000)


def test_a_result_of_ours_is_examined_in_the_memory_that_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnx takes packed weights for data that tells shapes, 70 bytes a weight: more than a GB here."""
    path, size = tmp_path / "packed.onnx", 4096
    base = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[M,{size}] x) => (float[M,{size}] y) {{ y = MatMul(x, w) }}'
    )
    base.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((size, size), np.float32), "w"))
    result = sparsify.optimize(base, passes="sparse-int8")
    result.save(path)
    monkeypatch.setattr(contained, "_MEMORY_BYTES", 2**30)
    contained.examine(path, path.stat().st_size, opens=False)


def test_a_model_of_the_hugging_face_cache_is_read_through_its_links(tmp_path: Path) -> None:
    repository = tmp_path / "models--someone--something"
    snapshot, blobs = repository / "snapshots" / "0123abc", repository / "blobs"
    (snapshot / "onnx").mkdir(parents=True)
    blobs.mkdir()
    (blobs / "aaa").write_bytes(external("w.data").SerializeToString())
    (blobs / "bbb").write_bytes(np.full(FLOATS, 3, np.float32).tobytes())
    for name, blob in (("model.onnx", "aaa"), ("w.data", "bbb")):
        (snapshot / "onnx" / name).symlink_to(f"../../../blobs/{blob}")
    loaded = modelio.load(snapshot / "onnx" / "model.onnx")
    tensor = loaded.graph.initializers["w"].const_value
    assert tensor is not None
    assert (tensor.numpy() == 3).all()
    (tmp_path / "secret").write_bytes(bytes(4 * FLOATS))
    (snapshot / "onnx" / "w.data").unlink()
    (snapshot / "onnx" / "w.data").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="outside"):
        modelio.load(snapshot / "onnx" / "model.onnx")


def test_a_link_inside_the_folder_is_followed(folder: Path) -> None:
    (folder / "link").symlink_to("w.data")
    (folder / "model.onnx").write_bytes(external("link").SerializeToString())
    assert modelio.load(folder / "model.onnx").graph.initializers["w"].const_value is not None


def test_nodes_in_any_order_are_no_cycle() -> None:
    limits.check(model([_identity("a", "y"), _identity("x", "a")]), "model")


def test_a_body_may_read_what_its_graph_makes() -> None:
    branch = helper.make_graph([_identity("a", "z")], "b", [], [onnx.ValueInfoProto(name="z")])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    limits.check(model([_identity("x", "a"), node]), "model")
    with pytest.raises(InputError, match="cycle"):
        limits.check(model([_identity("y", "a"), node]), "model")
