"""Models that are kept out of memory: mapped while somebody looks, run in stages, optimised as any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import sparsify
from sparsify import cost, graph, lowering, modelio, runtime, storage
from sparsify.api.optimizer import Result
from sparsify.pipeline import Pipeline, parse
from sparsify.runtime import slices, staged

TEXT = """
    <ir_version: 8, opset_import: ["" : 17]>
    deep (float[M,64] x) => (float[M,64] y, float[M,64] early)
    {
        a = MatMul(x, w0)
        early = Relu(a)
        b = MatMul(early, w1)
        c = Add(b, x)
        sum = ReduceSum <keepdims: int = 0> (c)
        zero = Sub(sum, sum)
        is_zero = Equal(zero, zero)
        d = If(is_zero) <
            then_branch = yes () => (float[M,64] t) { t = MatMul(c, w2) },
            else_branch = no () => (float[M,64] e) { e = Identity(c) }
        >
        y = MatMul(d, w0)
    }"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A model with external data: [64, 64] weights, one of them read twice and one in a branch."""
    model = ir.from_onnx_text(TEXT)
    _give(model, "w0", "w1", "w2")
    modelio.save(model, tmp_path / "deep.onnx", limit=1000)
    return tmp_path / "deep.onnx"


def _give(model: ir.Model, *names: str) -> None:
    """Give `model` the weights [64, 64] that its nodes name: the text could not hold them."""
    rng = np.random.default_rng(0)
    for name in names:
        weight = rng.standard_normal((64, 64)).astype(np.float32) * (rng.random((64, 64)) < 0.1)
        value = ir.Value(name=name, const_value=ir.tensor(weight.astype(np.float32), name=name))
        value.shape, value.type = ir.Shape((64, 64)), ir.TensorType(ir.DataType.FLOAT)
        model.graph.register_initializer(value)
    _connect(model)


def _connect(model: ir.Model) -> None:
    """Let nodes read the initializers that they name: the text could not hold them."""
    for node in graph.nodes(model):
        for index, value in enumerate(node.inputs):
            if value is not None and value.name in model.graph.initializers:
                node.replace_input_with(index, model.graph.initializers[value.name])


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large here is large by a thousandth of a thousandth of it, and a stage holds one weight."""
    monkeypatch.setattr(storage, "LARGE_BYTES", 1000)
    monkeypatch.setattr(storage, "_KEPT_BYTES", 100)
    monkeypatch.setattr(staged, "_STAGE_BYTES", 64 * 64 * 4)
    monkeypatch.setattr(staged, "_SMALL_BYTES", 2000)


@pytest.fixture
def feed() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)}


@pytest.mark.usefixtures("large")
def test_wide_layers_that_share_quantised_rows_give_in_slices_what_they_give_whole(
    tmp_path: Path, feed: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        wide (float[M,64] x) => (float[M,64] y) { a = MatMul(x, w0) b = MatMul(x, w1) y = Add(b, a) }""")
    _give(model, "w0", "w1")
    Pipeline(parse("sparse-int8,fuse-epilogue,share-quantization{measure=false}")).run(model)
    assert [n.op_type for n in model.graph][1:] == ["SparseMatMulIntegerDelta", "SparseMatMulIntegerDeltaAdd"]
    modelio.save(model, tmp_path / "wide.onnx")
    whole = runtime.run(runtime.session(tmp_path / "wide.onnx"), feed)["y"]
    monkeypatch.setattr(slices, "_WIDE", 100)
    monkeypatch.setattr(slices, "_SLICE", 64 * 30)  # three slices, the last one narrow
    assert [slices.is_wide(node) for node in model.graph] == [False, True, True]
    assert np.array_equal(runtime.run(runtime.session(model), feed)["y"], whole)


def test_a_tensor_is_mapped_only_while_somebody_holds_the_array(path: Path) -> None:
    def mapped() -> bool:
        return "deep.onnx" in Path("/proc/self/maps").read_text()

    tensor = modelio.load(path).graph.initializers["w0"].const_value
    assert isinstance(tensor, storage.Stored)
    array = tensor.numpy()
    if Path("/proc/self/maps").exists():
        assert mapped()
    assert np.array_equal(np.frombuffer(tensor.tobytes(), np.float32).reshape(64, 64), array)
    storage.forget(array)
    assert array.any()  # it comes back when it is looked at
    del array
    if Path("/proc/self/maps").exists():
        assert not mapped()
    assert np.asarray(tensor).shape == (64, 64)


@pytest.mark.usefixtures("large")
def test_stages_give_what_a_session_gives(path: Path, feed: dict[str, np.ndarray]) -> None:
    whole = runtime.session(path)
    model = modelio.load(path)
    in_stages = runtime.session(model)
    assert isinstance(in_stages, staged.Staged)
    assert len(list(staged.parts(model))) > 2
    for _ in range(2):  # the second time from what the first has written
        expected, found = runtime.run(whole, feed), runtime.run(in_stages, feed)
        assert list(expected) == list(found)
        for name in expected:
            # Without prepacking another kernel may sum in another order: 64 products a value, three products deep.
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5 * np.abs(expected[name]).max())
    assert not [*Path(in_stages._folder.name).glob("*/weights")]  # they are mapped where they lie
    shapes = runtime.observe_rows(model, feed, ["x", "a", "d", "w1", "nothing"])
    assert shapes == {"x": (5, 64), "a": (5, 64), "d": (5, 64), "w1": (64, 64)}


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("offset", [0, 4])
def test_weights_that_lie_in_two_folders_or_oddly(tmp_path: Path, feed: dict[str, np.ndarray], offset: int) -> None:
    whole, model = ir.from_onnx_text(TEXT), ir.from_onnx_text(TEXT)
    rng = np.random.default_rng(0)
    (tmp_path / "data").write_bytes(bytes(offset))
    scratch = storage.Scratch()
    for name in ("w0", "w1", "w2"):
        weight = rng.standard_normal((64, 64), np.float32)
        with (tmp_path / "data").open("ab") as file:
            at = file.tell()
            weight.tofile(file)
        lies = storage.Stored(
            "data", at, weight.nbytes, ir.DataType.FLOAT, shape=ir.Shape((64, 64)), name=name, base_dir=str(tmp_path)
        )
        for one, tensor in ((whole, ir.tensor(weight)), (model, scratch.store(weight, name) if name == "w1" else lies)):
            value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(ir.DataType.FLOAT))
            value.shape = ir.Shape((64, 64))
            one.graph.register_initializer(value)
    _connect(whole)
    _connect(model)
    storage.keep_out_of_memory(model.graph)
    in_stages = runtime.session(model)
    expected, found = runtime.run(runtime.session(whole), feed), runtime.run(in_stages, feed)
    for name in expected:
        # As above.
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5 * np.abs(expected[name]).max())
    assert isinstance(in_stages, staged.Staged)
    assert bool([*Path(in_stages._folder.name).glob("*/weights")]) == (offset > 0)


def _optimized(path: Path, **options: object) -> Result:
    return sparsify.optimize(path, passes="sparse-int8,sparse-fp32", threads=1, **options)  # type: ignore[arg-type]


def test_a_large_model_becomes_what_a_small_one_becomes(
    path: Path, feed: dict[str, np.ndarray], request: pytest.FixtureRequest
) -> None:
    small = _optimized(path, data=[feed])
    modelio.save(small.model, path.with_name("small.onnx"))
    request.getfixturevalue("large")
    result = _optimized(path, data=[feed])
    assert result.changed
    assert result.latency is None
    assert "too large to be timed" in result.reason
    weights = [v.const_value for v in result.model.graph.initializers.values()]
    assert any(isinstance(w, storage.Stored) and "sparsify-" in str(w.path) for w in weights)
    result.save(path.with_name("large.onnx"))
    saved = modelio.load(path.with_name("large.onnx"))
    assert len(list(path.parent.glob("large.onnx.*.data"))) == 1  # one message would have to be made in memory
    for name, value in small.model.graph.initializers.items():
        assert value.const_value is not None
        assert saved.graph.initializers[name].const_value.tobytes() == value.const_value.tobytes()  # type: ignore


@pytest.mark.usefixtures("large")
def test_of_layers_that_are_alike_the_first_columns_of_one_are_measured(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[tuple[tuple[int, ...], int]] = []

    def measure(matrix: np.ndarray, *_: object, rows: int, **__: object) -> cost.Cost:
        measured.append((matrix.shape, rows))
        return cost.Cost(dense_ms=3.0, rewritten_ms=1.0)

    monkeypatch.setattr(cost, "measure", measure)
    monkeypatch.setattr(lowering, "_MEASURED", 64 * 16)  # 64 columns at least, so make the layer wider
    model = modelio.load(path)
    wide = np.tile(model.graph.initializers["w1"].const_value.numpy(), (1, 2))  # type: ignore[union-attr]
    other = wide * (np.arange(64) % 2)[:, None].astype(np.float32)
    for name, array in (("w0", wide), ("w1", wide), ("w2", other)):
        model.graph.initializers[name].const_value = storage.tensor(array, name, model.graph)
        model.graph.initializers[name].shape = ir.Shape(array.shape)
    for node in graph.nodes(model):
        node.meta["rows"] = 7
    report = Pipeline(parse("sparse-int8{min_speedup=1}")).run(model)
    assert measured == [((64, 64), 7)] * 2  # of w0, which w1 is like, and of w2
    changes = report.steps[0].changes
    assert len(changes) == 4
    assert {change.facts["dense_ms"] for change in changes} == {6.0}


@pytest.mark.usefixtures("large")
def test_the_digest_of_a_tensor_in_a_file_is_remembered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, read = modelio.load(path), []
    chunks = modelio._chunks
    monkeypatch.setattr(modelio, "_chunks", lambda tensor: read.append(tensor.name) or chunks(tensor))
    first = modelio.digest(model)
    assert sorted(read) == ["w0", "w1", "w2"]
    assert modelio.digest(model) == first
    assert len(read) == 3
    changed = model.graph.initializers["w0"].const_value.numpy() + 1  # type: ignore[union-attr]
    model.graph.initializers["w0"].const_value = storage.tensor(changed, "w0", model.graph)
    assert modelio.digest(model) != first


def test_tensors_in_a_scratch_file_can_be_mapped_by_onnxruntime() -> None:
    scratch = storage.Scratch()
    arrays = [np.arange(size, dtype=np.uint8) for size in (1, 64, 100, 3)]
    tensors = [scratch.store(array, str(i)) for i, array in enumerate(arrays)]
    assert [t.offset for t in tensors] == [0, 64, 128, 256]
    for tensor, array in zip(tensors, arrays, strict=True):
        assert np.array_equal(tensor.numpy(), array)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("passes", ["sparse-int8", "sparse-fp32", "sparse-int8,fuse-epilogue", "sparse-bf16"])
def test_wide_sparse_layers_give_in_slices_what_they_give_whole(
    path: Path, feed: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, passes: str
) -> None:
    model = modelio.load(path)
    Pipeline(parse(passes)).run(model)
    modelio.save(model, path.with_name("sparse.onnx"))
    whole = runtime.run(runtime.session(path.with_name("sparse.onnx")), feed)
    monkeypatch.setattr(slices, "_WIDE", 100)
    monkeypatch.setattr(slices, "_SLICE", 64 * 30)  # three slices, the last one narrow
    assert any(slices.is_wide(node) for node in model.graph)
    found = runtime.run(runtime.session(model), feed)
    for name in whole:
        np.testing.assert_allclose(found[name], whole[name], rtol=0, atol=1e-5 * np.abs(whole[name]).max())
