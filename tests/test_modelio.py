"""Models come in whole and go out whole, or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import pytest

from sparsify import modelio
from sparsify.errors import InputError, UsageError

TEXT = """
    <ir_version: 8, opset_import: ["" : 17]>
    small (float[M,4] x) => (float[M,3] y)
    <float[4,3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}>
    { y = MatMul(x, w) }"""


@pytest.fixture
def model() -> ir.Model:
    return ir.from_onnx_text(TEXT)


@pytest.fixture
def path(model: ir.Model, tmp_path: Path) -> Path:
    modelio.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def weight(model: ir.Model, name: str = "w") -> np.ndarray:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def sparse_model(shape: tuple[int, int], indices: np.ndarray, values: np.ndarray) -> onnx.ModelProto:
    """y = x w with w [shape] as a sparse initializer."""
    sparse = onnx.helper.make_sparse_tensor(
        onnx.numpy_helper.from_array(values, "w"), onnx.numpy_helper.from_array(indices, "w_indices"), list(shape)
    )
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "sparse",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, shape[0]])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, shape[1]])],
        sparse_initializer=[sparse],
    )
    return onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])


def leftovers(folder: Path) -> list[str]:
    """Temporary files, whose names start with a dot."""
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


class TestLoad:
    @pytest.mark.parametrize("form", ["path", "text path", "bytes", "proto", "ir"])
    def test_takes_every_form(self, model: ir.Model, path: Path, form: str) -> None:
        forms = {
            "path": path,
            "text path": str(path),
            "bytes": path.read_bytes(),
            "proto": onnx.load(path),
            "ir": model,
        }
        assert np.array_equal(weight(modelio.load(forms[form])), weight(model))

    def test_leaves_the_given_model_alone(self, model: ir.Model) -> None:
        copy = modelio.load(model)
        copy.graph.initializers["w"].const_value = ir.tensor(np.zeros((4, 3), np.float32), name="w")
        copy.graph.remove(copy.graph[0])
        assert len(model.graph) == 1
        assert weight(model).any()

    @pytest.mark.parametrize("linear", [True, False])
    def test_keeps_sparse_initializers(self, linear: bool) -> None:
        dense = np.zeros((4, 3), np.float32)
        dense[1, 2], dense[3, 0] = 5, -7
        positions = np.argwhere(dense)
        indices = np.ravel_multi_index(tuple(positions.T), dense.shape) if linear else positions
        proto = sparse_model((4, 3), indices.astype(np.int64), dense[dense != 0])
        assert np.array_equal(weight(modelio.load(proto)), dense)
        assert len(proto.graph.sparse_initializer) == 1  # the caller's message is the caller's

    @pytest.mark.parametrize("linear", [True, False])
    @pytest.mark.parametrize("limit", [modelio.INLINE_LIMIT, 0])  # within the file, and with a data file beside it
    def test_writes_sparse_initializers_as_they_came(self, tmp_path: Path, linear: bool, limit: int) -> None:
        indices = np.array([3, 10**6 + 2] if linear else [[0, 3], [1, 2]], np.int64)
        proto = sparse_model((10**6, 10**6), indices, np.array([1, 2], np.float32))
        proto.graph.sparse_initializer[0].values.doc_string = "kept"
        model = modelio.load(proto)
        with pytest.raises(InputError, match=r"`w`.*4000000000000 bytes"):
            weight(model)
        modelio.save(modelio.load(model), tmp_path / "out.onnx", limit=limit)
        written = onnx.load(tmp_path / "out.onnx")
        assert list(written.graph.sparse_initializer) == list(proto.graph.sparse_initializer)
        assert not written.graph.initializer
        assert modelio.digest(model) == modelio.digest(modelio.load(tmp_path / "out.onnx"))

    @pytest.mark.parametrize("indices", [[3, 3], [5, 3], [[0, 1, 1]], [[0, 3]]])
    def test_refuses_sparse_initializers_that_contradict_themselves(self, indices: list[int] | list[list[int]]) -> None:
        given = np.array(indices, np.int64)
        with pytest.raises(InputError, match="sparse initializer `w` has"):
            modelio.load(sparse_model((4, 3), given, np.ones(len(given), np.float32)))

    def test_refuses_positions_outside_a_sparse_initializer(self) -> None:
        with pytest.raises(InputError, match="outside"):
            modelio.load(sparse_model((4, 3), np.array([12], np.int64), np.ones(1, np.float32)))

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "empty"),
            (b"#!/bin/sh\necho this is no model\n", "not an ONNX model"),
            (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "not an ONNX model"),
        ],
    )
    def test_refuses_what_is_not_onnx(self, tmp_path: Path, content: bytes, says: str) -> None:
        (tmp_path / "x.onnx").write_bytes(content)
        with pytest.raises(InputError, match=says) as caught:
            modelio.load(tmp_path / "x.onnx")
        assert caught.value.where == str(tmp_path / "x.onnx")
        assert caught.value.hint

    def test_refuses_a_truncated_file_wherever_it_is_cut(self, path: Path) -> None:
        whole = path.read_bytes()
        for cut in range(1, len(whole)):
            try:
                loaded = modelio.load(whole[:cut])
            except InputError:
                continue
            # Fields after the graph may be missing without harm; the graph itself may not.
            assert len(loaded.graph) == 1

    def test_refuses_a_missing_file_and_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such file"):
            modelio.load(tmp_path / "absent.onnx")
        with pytest.raises(InputError, match="folder"):
            modelio.load(tmp_path)

    def test_refuses_an_empty_graph(self) -> None:
        proto = onnx.ModelProto.FromString(modelio.serialize(ir.from_onnx_text(TEXT)))
        del proto.graph.node[:]
        with pytest.raises(InputError, match="empty"):
            modelio.load(proto)


class TestSave:
    def test_is_deterministic_and_digest_is_that_of_the_file(self, model: ir.Model, path: Path, tmp_path: Path) -> None:
        modelio.save(modelio.load(path), tmp_path / "again.onnx")
        assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()
        expected = hashlib.sha256(path.read_bytes()).hexdigest()
        assert modelio.digest(model) == modelio.digest(path) == expected
        assert modelio.size(model) == modelio.size(path) == path.stat().st_size

    def test_refuses_to_overwrite_the_input(self, path: Path) -> None:
        before = path.read_bytes()
        loaded = modelio.load(path)
        os.link(path, path.with_name("alias.onnx"))
        for name in ("model.onnx", "alias.onnx"):
            with pytest.raises(UsageError, match="overwrite the input"):
                modelio.save(loaded, path.with_name(name))
        assert path.read_bytes() == before

    def test_leaves_nothing_behind_when_it_fails(
        self, model: ir.Model, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = path.read_bytes()

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(UsageError, match="No space left"):
            modelio.save(model, path)
        assert path.read_bytes() == before
        assert leftovers(path.parent) == []

    def test_refuses_a_folder_that_does_not_exist(self, model: ir.Model, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="cannot write"):
            modelio.save(model, tmp_path / "absent" / "x.onnx")


def large() -> ir.Model:
    """A weight of 2048 values: above the size under which onnx_ir keeps tensors in the message."""
    w = np.arange(2048, dtype=np.float32).reshape(512, 4)
    proto = sparse_model((512, 4), np.arange(2048), w.ravel())
    proto.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    del proto.graph.sparse_initializer[:]
    return modelio.load(proto)


def other() -> ir.Model:
    changed = large()
    changed.graph.initializers["w"].const_value = ir.tensor(np.ones((512, 4), np.float32), name="w")
    return changed


class TestExternalData:
    @pytest.fixture
    def external(self, tmp_path: Path) -> Path:
        modelio.save(large(), tmp_path / "big.onnx", limit=1000)
        return tmp_path / "big.onnx"

    @pytest.fixture
    def data(self, external: Path) -> Path:
        (data,) = external.parent.glob("big.onnx.*.data")
        return data

    def test_goes_to_a_file_of_its_own_and_comes_back(self, external: Path, data: Path) -> None:
        assert data.stat().st_size >= 8192
        assert external.stat().st_size < 8192
        assert np.array_equal(weight(modelio.load(external)), weight(large()))
        assert modelio.size(external) == sum(p.stat().st_size for p in external.parent.iterdir())
        onnx.checker.check_model(str(external))

    def test_is_found_from_another_folder(self, external: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(external.parent)
        loaded = modelio.load("big.onnx")
        monkeypatch.chdir("/")
        assert np.array_equal(weight(loaded), weight(large()))

    def test_is_put_inside_when_it_fits(self, external: Path) -> None:
        modelio.save(modelio.load(external), external.with_name("one.onnx"))
        alone = modelio.load(external.with_name("one.onnx").read_bytes())
        assert np.array_equal(weight(alone), weight(large()))

    def test_is_deterministic(self, external: Path) -> None:
        before = {file.name: file.read_bytes() for file in external.parent.iterdir()}
        modelio.save(large(), external, limit=1000)
        assert {file.name: file.read_bytes() for file in external.parent.iterdir()} == before

    @pytest.mark.parametrize("escape", ["../secret", "/etc/hostname"])
    def test_may_not_leave_the_folder(self, external: Path, escape: str) -> None:
        proto = onnx.load(external, load_external_data=False)
        proto.graph.initializer[0].external_data[0].value = escape
        external.write_bytes(proto.SerializeToString())
        (external.parent.parent / "secret").write_bytes(bytes(8192))
        with pytest.raises(InputError, match="outside"):
            modelio.load(external)

    def test_may_not_leave_the_folder_through_a_link(self, external: Path, data: Path, tmp_path: Path) -> None:
        outside = tmp_path.parent / f"{tmp_path.name}-outside.data"
        data.rename(outside)
        data.symlink_to(outside)
        with pytest.raises(InputError, match="outside"):
            modelio.load(external)

    def test_refuses_missing_and_short_data(self, external: Path, data: Path) -> None:
        data.write_bytes(data.read_bytes()[:-1])
        with pytest.raises(InputError, match="cut short"):
            modelio.load(external)
        data.unlink()
        with pytest.raises(InputError, match="missing"):
            modelio.load(external)

    def test_refuses_bytes_whose_data_nobody_can_find(self, external: Path) -> None:
        with pytest.raises(InputError, match="in which folder"):
            modelio.load(external.read_bytes())

    def test_never_overwrites_or_removes_the_data_of_the_input(self, external: Path, data: Path) -> None:
        loaded = modelio.load(external)
        with pytest.raises(UsageError, match="overwrite the input"):
            modelio.save(loaded, data)
        external.rename(external.with_name("renamed.onnx"))
        loaded = modelio.load(external.with_name("renamed.onnx"))
        modelio.save(loaded, external)  # its data would be that of the model which was here before
        assert np.array_equal(weight(modelio.load(external.with_name("renamed.onnx"))), weight(large()))

    @pytest.mark.parametrize("stopped_at", ["big.onnx", ".data"])
    def test_stopped_at_any_moment_the_old_model_is_whole(
        self, external: Path, monkeypatch: pytest.MonkeyPatch, stopped_at: str
    ) -> None:
        replace = os.replace

        def stops(source: Path, target: Path) -> None:
            # onnx_ir replaces files, too, in the scratch folder.
            if Path(target).parent == external.parent and Path(target).name.endswith(stopped_at):
                raise KeyboardInterrupt
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", stops)
            with pytest.raises(KeyboardInterrupt):
                modelio.save(other(), external, limit=1000)
        assert np.array_equal(weight(modelio.load(external)), weight(large()))
        modelio.save(other(), external, limit=1000)
        assert np.array_equal(weight(modelio.load(external)), np.ones((512, 4)))
        assert len(list(external.parent.iterdir())) == 2  # what an earlier model left behind is gone

    def test_data_of_a_model_that_needs_none_any_more_goes(self, external: Path) -> None:
        modelio.save(other(), external)
        assert [file.name for file in external.parent.iterdir()] == ["big.onnx"]


class TestCopy:
    def test_is_byte_for_byte(self, path: Path) -> None:
        path.write_bytes(path.read_bytes() + b"\x82\x06\x00")  # a field that nobody knows: lost when written anew
        modelio.copy(modelio.load(path), path.with_name("copy.onnx"))
        assert path.with_name("copy.onnx").read_bytes() == path.read_bytes()

    def test_refuses_to_overwrite_the_input(self, path: Path) -> None:
        with pytest.raises(UsageError, match="overwrite the input"):
            modelio.copy(modelio.load(path), path)
