"""Every form of a model opens, runs, and comes back as it was."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from sparsify import cost, formats, kernels, ops, runtime
from sparsify.errors import ExitStatus, InputError
from sparsify.runtime import source

# A weight of 1600 bytes: onnx leaves tensors below 1024 in the model whatever it is told.
W = np.arange(400, dtype=np.float32).reshape(4, 100) - 200
X = np.array([[1, -2, 3, -4], [0.5, 0.25, -1, 2]], np.float32)
Y = np.maximum(X.astype(np.float64) @ W, 0)  # multiples of 1/4 below 2^12: exact in float32 too


def proto(raw: bool = True) -> onnx.ModelProto:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        mlp (float[M,4] x) => (float[M,100] y) { h = MatMul(x, w)
          y = Relu(h) }""")
    if raw:
        model.graph.initializer.append(onnx.numpy_helper.from_array(W, "w"))
    else:
        model.graph.initializer.append(onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, W.shape, W.ravel()))
    return model


def saved(folder: Path, *, external: bool = False) -> Path:
    path = folder / "m.onnx"
    onnx.save(proto(), path, save_as_external_data=external, location="m.data", size_threshold=0)
    return path


@pytest.fixture(params=["path", "str", "bytes", "proto", "plain proto", "ir", "external path", "external ir"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[source.Source]:
    path = saved(tmp_path, external="external" in request.param)
    return {
        "path": path,
        "str": str(path),
        "bytes": path.read_bytes(),
        "proto": proto(),
        "plain proto": proto(raw=False),
        "ir": ir.from_proto(proto()),
        "external path": path,
        "external ir": ir.load(path),
    }[request.param]


def content(model: source.Source) -> object:
    """What must not change."""
    if isinstance(model, ir.Model):
        return ir.to_proto(model).SerializeToString(deterministic=True), [
            type(v.const_value) for v in model.graph.initializers.values()
        ]
    if isinstance(model, (str, Path)):
        return {p.name: p.read_bytes() for p in Path(model).parent.iterdir()}
    return model if isinstance(model, bytes) else model.SerializeToString(deterministic=True)


def test_opens_every_form_and_leaves_it_alone(model):
    before = content(model)
    assert runtime.run(runtime.session(model), {"x": X})["y"].tolist() == Y.tolist()
    assert content(model) == before


def test_large_models_go_through_a_file(model, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(source, "INLINE_BYTES", 8)
    before = content(model)
    with runtime.opened(model) as skeleton:
        if isinstance(model, (ir.Model, onnx.ModelProto)):
            assert skeleton.scratch
            assert [t.data_location for t in skeleton.proto.graph.initializer] == [onnx.TensorProto.EXTERNAL]
    assert runtime.run(runtime.session(model), {"x": X})["y"].tolist() == Y.tolist()
    shapes = runtime.observe_rows(model, {"x": X}, ["h"])
    assert shapes == {"h": (2, 100)}
    assert content(model) == before
    assert skeleton.folder is None or not skeleton.scratch or not skeleton.folder.exists()


def test_size_counts_external_data(tmp_path: Path):
    path = saved(tmp_path, external=True)
    assert runtime.size_bytes(path) == path.stat().st_size + (tmp_path / "m.data").stat().st_size
    assert runtime.size_bytes(path.read_bytes()) == path.stat().st_size
    assert runtime.size_bytes(proto()) == len(proto().SerializeToString())


def test_threads_are_inside_operators_only():
    options = runtime.session(proto(), threads=1).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.log_severity_level == 4  # what is an error is raised


@pytest.mark.parametrize("junk", [b"", b"PK\3\4 not onnx", b"\xff" * 100, b"\x08\x08"])
def test_refuses_what_is_not_onnx(tmp_path: Path, junk: bytes):
    (tmp_path / "m.onnx").write_bytes(junk)
    for model in (tmp_path / "m.onnx", junk):
        with pytest.raises(InputError) as error:
            runtime.session(model)
        assert error.value.status is ExitStatus.BAD_INPUT
    with pytest.raises(InputError, match="not an ONNX model"), runtime.opened(tmp_path / "m.onnx"):
        pass


def test_refuses_a_missing_file(tmp_path: Path):
    for use in (runtime.session, runtime.size_bytes, runtime.calls_native):
        if use is runtime.calls_native and not runtime.calls_native(operator_model()):
            continue  # without kernels the file is not looked at
        with pytest.raises(InputError) as error:
            use(tmp_path / "none.onnx")
        assert error.value.where == str(tmp_path / "none.onnx")


def test_refuses_a_model_that_onnxruntime_refuses():
    broken = proto()
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(InputError, match="NoSuchOperator"):
        runtime.session(broken)


def test_run_ignores_other_keys_and_names_missing_ones():
    session = runtime.session(proto())
    assert runtime.run(session, {"x": X, "label": X})["y"].shape == (2, 100)
    with pytest.raises(InputError, match="input `x` is missing"):
        runtime.run(session, {"z": X})
    with pytest.raises(InputError, match="onnxruntime refuses it"):
        runtime.run(session, {"x": X[:, :3]})


def operator_model() -> ir.Model:
    encoded = formats.encode(np.eye(4, dtype=np.float32))
    operator = ops.Operator(ops.Values.FP32, encoded.encoding, ops.Activation.NONE)
    return cost.operator_model(4, ops.inputs_of(encoded, np.zeros(4, np.float32), None), operator)


class Waiting:
    """A session that lets the clock go on, and computes nothing."""

    def get_inputs(self) -> list[Any]:
        return []

    def get_outputs(self) -> list[Any]:
        return [onnx.ValueInfoProto(name="stopped")]

    def run(self, _: object, __: object, options: Any) -> list[bool]:
        time.sleep(0.5)
        return [options.terminate]


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="threads are timed by the clock here")
def test_a_limit_is_of_processor_time():
    assert not runtime.run(Waiting(), {}, limit_s=0.1)["stopped"]


def test_our_operators_run_with_and_without_our_kernels():
    for native in (True, False):
        session = runtime.session(operator_model(), native=native)
        assert runtime.run(session, {"X": X})["Y"].tolist() == X.tolist()


def test_only_models_with_our_operators_call_our_kernels(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(kernels.ISA_VARIABLE, raising=False)  # a forced scalar path counts as ours
    assert not runtime.calls_native(proto())
    assert runtime.calls_native(operator_model()) == (kernels.isa() not in (None, "scalar"))
