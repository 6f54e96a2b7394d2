"""The main job from Python: what comes in, what comes back, and when the input is given back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import scipy.sparse

import sparsify
from sparsify import data as feeds
from sparsify import modelio, runtime
from sparsify.api import samples
from sparsify.errors import InputError, UsageError
from tests import small
from tests.api.test_networks import forward
from tests.strategies import random_sparse

INT8 = "sparse-int8,fuse-epilogue"


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSIFY_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_takes_every_form_of_a_model(tmp_path: Path) -> None:
    path = small.save(small.mlp(), tmp_path)
    forms = [path, str(path), path.read_bytes(), onnx.load(path), modelio.load(path)]
    digests = {sparsify.optimize(form, passes=INT8).report["candidate"]["sha256"] for form in forms[:2]}
    assert len(digests) == 1
    for form in forms[2:]:
        assert sparsify.optimize(form, passes=INT8).changed


def test_never_changes_the_model_it_is_given() -> None:
    proto = small.mlp()
    model = modelio.load(proto)
    before = modelio.serialize(model)
    result = sparsify.optimize(model, passes=INT8)
    assert result.changed
    assert result.model is not model
    assert modelio.serialize(model) == before


@pytest.mark.parametrize("form", ["feed", "list", "file", "folder"])
def test_takes_every_form_of_data(tmp_path: Path, form: str) -> None:
    file = small.save_feed(tmp_path)
    forms = {"feed": small.feed(), "list": [small.feed(1, 8), small.feed(2, 8)], "file": file, "folder": tmp_path}
    result = sparsify.optimize(small.mlp(), forms[form], passes=INT8)
    assert result.drift is not None
    assert result.drift.outputs["y"].samples == (8 if form == "list" else small.SAMPLES // 2)
    assert result.latency is not None
    assert result.latency["measured_on"] == "data"


@pytest.mark.parametrize(("data", "smooths"), [(None, False), (small.feed(rows=1), False), (small.feed(), True)])
def test_a_level_smooths_where_there_is_something_to_learn_from(data: Any, smooths: bool) -> None:
    report = sparsify.optimize(small.normalised(), data, level=2).report
    assert ("smooth" in [step["pass"] for step in report["passes"]]) == smooths
    assert ("smooth" in report["pipeline"]) == smooths


def test_says_nothing_of_drift_without_data() -> None:
    result = sparsify.optimize(small.mlp(), passes=INT8)
    assert result.changed
    assert result.drift is None
    assert result.report["drift"] is None
    assert result.latency is None or result.latency["measured_on"] == "synthetic inputs"


def test_audits_only_samples_that_did_not_calibrate() -> None:
    samples = small.feed()
    _, held_out = feeds.split([samples], seed=5)
    result = sparsify.optimize(small.mlp(), samples, passes=INT8, seed=5)
    again = sparsify.audit(small.mlp(), result.model, held_out, seed=5)
    assert result.drift is not None
    assert result.drift.outputs["y"].metrics == again.outputs["y"].metrics


def test_says_which_kind_of_model_it_cannot_rewrite() -> None:
    proto = small.mlp()
    proto.opset_import[0].version = 9
    result = sparsify.optimize(proto)
    assert not result.changed
    assert "opset 9 is below 11" in result.reason
    assert ["opset 9 is below 11" in row["reason"] for row in result.report["nodes"]] == [True, True]


def test_what_was_optimised_before_can_be_optimised_again(tmp_path: Path) -> None:
    first = sparsify.optimize(small.mlp(), small.feed(), passes="cleanup,sparse-int8")
    first.save(tmp_path / "first.onnx")
    again = sparsify.optimize(tmp_path / "first.onnx", passes="cleanup,sparse-int8,fuse-epilogue")
    assert again.changed
    assert "ai.sparsify.drift" in first.model.metadata_props
    assert "ai.sparsify.drift" not in again.model.metadata_props  # nobody measured it this time
    onnx.checker.check_model(modelio.to_proto(again.model), full_check=True)
    # A fused bias may be rounded once where it was rounded twice, and a last bit may move an activation of the second
    # layer by one of 255 steps: 20 log10(255) = 48 dB below its range if it moved all of them.
    assert sparsify.audit(first.model, again.model, small.feed(), "sqnr_db>=48")
    # Functions that define our operators are no nodes of the model.
    assert [step["nodes"][1] for step in again.report["passes"]] == [4, 4, 2]


def test_one_sample_judges_and_calibrates_nothing() -> None:
    single = small.feed(rows=1)
    result = sparsify.optimize(small.mlp(), single, "cosine>=0.9", passes=INT8)
    assert result.drift is not None
    assert [(v.state, v.value > 0.9) for v in result.drift.verdicts] == [("undecided", True)]
    assert not result.accepted
    assert result.drift.outputs["y"].samples == 1
    assert any("nothing was calibrated" in note for note in result.report["drift"]["notes"])
    # Pruned by what the sample says, and judged by the same sample, it would look better than it is.
    prune = "prune{pattern=16:64,min_size=0},sparse-fp32"
    by_size, fitted = sparsify.optimize(small.mlp(), passes=prune), sparsify.optimize(small.mlp(), single, passes=prune)
    assert modelio.to_proto(by_size.model).graph == modelio.to_proto(fitted.model).graph


def test_is_accepted_inside_the_budget_and_not_outside() -> None:
    inside = sparsify.optimize(small.mlp(), small.feed(), "cosine>=0.9", passes=INT8)
    outside = sparsify.optimize(small.mlp(), small.feed(), ["cosine>=0.9", "sqnr_db>=400"], passes=INT8)
    assert inside.accepted
    assert not outside.accepted
    assert outside.reason.startswith("refused: over budget: `sqnr_db`")


def test_a_budget_is_held_against_an_unchanged_model_too() -> None:
    result = sparsify.optimize(small.no_linear_layer(), {"x": np.eye(4, dtype=np.float32)}, "max_abs<=0")
    assert (result.changed, result.accepted) == (False, True)
    assert result.reason.endswith("inside every budget")


def test_the_report_is_json(tmp_path: Path) -> None:
    result = sparsify.optimize(small.mlp(), small.feed(), passes="detect")
    assert not result.changed
    assert json.loads(json.dumps(result.report, allow_nan=False)) == result.report


def test_is_given_back_when_the_whole_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    # The scalar reference runs one multiplication at a time, and without the library onnxruntime runs our functions'
    # two dozen nodes: an order of magnitude slower than its dense kernel. The pass is told to accept even that.
    monkeypatch.setenv("SPARSIFY_ISA", "scalar")
    result = sparsify.optimize(small.mlp(), small.feed(), passes="sparse-int8{min_speedup=1e-9}")
    assert not result.changed
    assert "the whole model would be no faster" in result.reason
    assert [n["decision"] for n in result.report["nodes"]] == ["left", "left"]
    assert modelio.serialize(result.model) == modelio.serialize(modelio.load(small.mlp()))


def test_rows_are_those_that_the_user_names() -> None:
    given = "sparse-int8{min_speedup=1e-9}"
    named = sparsify.optimize(small.mlp(), small.feed(), passes=given, rows=5)
    seen = sparsify.optimize(small.mlp(), small.feed(), passes=given)
    assert {n["rows"] for n in named.report["nodes"]} == {5}
    assert {n["rows"] for n in seen.report["nodes"]} == {small.SAMPLES}


def test_weights_pruned_for_nobody_come_back() -> None:
    result = sparsify.optimize(small.mlp(), passes="prune{min_size=0},sparse-fp32{min_speedup=1e9}")
    assert not result.changed
    assert "taken back" in result.report["nodes"][0]["reason"]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"level": 2, "passes": "prune"}, UsageError, "exclude each other"),
        ({"level": 4}, UsageError, "no level 4"),
        ({"target": "gpu"}, UsageError, "no target `gpu`"),
        ({"budget": "cosine>=0.9"}, UsageError, "only be held against data"),
        ({"data": []}, InputError, "no feeds"),
        ({"data": {"z": np.zeros(3)}}, InputError, "`x` is missing"),
    ],
)
def test_refuses_options_that_make_no_sense(options: dict[str, object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        sparsify.optimize(small.mlp(), **options)  # type: ignore[arg-type]


def test_saving_never_overwrites_the_input(tmp_path: Path) -> None:
    path = small.save(small.mlp(), tmp_path)
    before = path.read_bytes()
    for result in (sparsify.optimize(path, passes=INT8), sparsify.optimize(path, passes="detect")):
        with pytest.raises(UsageError, match="overwrite the input"):
            result.save(path)
    assert path.read_bytes() == before


def test_a_sparse_initializer_is_not_lost(tmp_path: Path) -> None:
    proto = small.mlp(sparsity=0.9)
    (dense,) = [t for t in proto.graph.initializer if t.name == "w1"]
    w = onnx.numpy_helper.to_array(dense)
    proto.graph.initializer.remove(dense)
    indices = np.flatnonzero(w)
    proto.graph.sparse_initializer.append(
        onnx.helper.make_sparse_tensor(
            onnx.numpy_helper.from_array(w.ravel()[indices], "w1"), onnx.numpy_helper.from_array(indices), w.shape
        )
    )
    result = sparsify.optimize(small.save(proto, tmp_path), passes="sparse-fp32")
    assert result.changed
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in small.mlp(sparsity=0.9).graph.initializer}
    layers = [
        (scipy.sparse.csc_array(weights["w1"]), weights["b1"], "Relu"),
        (scipy.sparse.csc_array(weights["w2"]), weights["b2"], None),
    ]
    expected, bound = forward(layers, small.feed()["x"])
    y = runtime.run(runtime.session(result.model), small.feed())["y"]
    assert (np.abs(y - expected) <= bound).all()


class TestDoors:
    def test_audit_stays_a_function(self) -> None:
        import sparsify.audit
        from sparsify.audit import DriftReport

        assert callable(sparsify.audit)
        assert isinstance(sparsify.audit(small.mlp(), small.mlp(), small.feed()), DriftReport)

    def test_all_that_is_promised_is_there(self) -> None:
        for name in sparsify.__all__:
            assert getattr(sparsify, name) is not None
        with pytest.raises(AttributeError, match="no attribute 'optimise'"):
            _ = sparsify.optimise

    def test_sessions_are_onnxruntimes(self, tmp_path: Path) -> None:
        import onnxruntime

        result = sparsify.optimize(small.mlp(), passes=INT8)
        result.save(tmp_path / "out.onnx")
        options = onnxruntime.SessionOptions()
        for session in (
            sparsify.InferenceSession(tmp_path / "out.onnx"),
            sparsify.InferenceSession(str(tmp_path / "out.onnx"), options, ["CPUExecutionProvider"]),
            sparsify.InferenceSession((tmp_path / "out.onnx").read_bytes(), providers=["CPUExecutionProvider"]),
        ):
            assert isinstance(session, onnxruntime.InferenceSession)
            (y,) = session.run(None, small.feed())
            assert np.array_equal(y, runtime.run(runtime.session(result.model), small.feed())["y"])

    def test_register(self, tmp_path: Path) -> None:
        import onnxruntime

        from sparsify import kernels

        options = onnxruntime.SessionOptions()
        assert sparsify.register(options) == (kernels.isa() not in (None, "scalar"))
        sparsify.optimize(small.mlp(), passes=INT8).save(tmp_path / "out.onnx")
        session = onnxruntime.InferenceSession(str(tmp_path / "out.onnx"), options)
        assert session.run(None, small.feed())[0].shape == (small.SAMPLES, small.OUTPUTS)

    def test_registering_twice_does_no_harm(self, tmp_path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        assert sparsify.register(options) == sparsify.register(options)
        sparsify.optimize(small.mlp(), passes=INT8).save(tmp_path / "out.onnx")
        for _ in range(2):  # options may make several sessions
            session = sparsify.InferenceSession(str(tmp_path / "out.onnx"), options)
            assert session.run(None, small.feed())[0].shape == (small.SAMPLES, small.OUTPUTS)


def test_a_model_that_onnxruntime_cannot_load_is_the_inputs_fault() -> None:
    proto = small.mlp()
    proto.graph.node[2].op_type, proto.graph.node[2].domain = "Mystery", "nobody.knows"
    proto.opset_import.append(onnx.helper.make_opsetid("nobody.knows", 1))
    with pytest.raises(InputError, match="Mystery"):
        sparsify.optimize(proto)


def test_the_result_of_from_scipy_can_be_saved_and_run(tmp_path: Path) -> None:
    matrix = scipy.sparse.coo_array(random_sparse((30, 20), 0.1))
    model = sparsify.from_scipy([(matrix, None, "Relu")])
    assert isinstance(model, ir.Model)
    modelio.save(model, tmp_path / "net.onnx")
    (y,) = sparsify.InferenceSession(str(tmp_path / "net.onnx")).run(None, {"x": np.ones((2, 30), np.float32)})
    expected = np.maximum(matrix.sum(axis=0), 0)
    # A sum of at most 30 numbers: 30 eps times the sum of their magnitudes.
    bound = 30 * np.finfo(np.float32).eps * abs(matrix).sum(axis=0)
    assert (np.abs(y - expected) <= bound).all()


def _endless() -> onnx.ModelProto:
    """A loop without a count and without a condition."""
    model: onnx.ModelProto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2,4] x) => (float[2,4] y) {
          y = Loop("", "", x) <body = b (int64 i, bool go, float[2,4] s) => (bool more, float[2,4] t) {
            more = Identity(go)  t = Relu(s) }> }""")
    return model


@pytest.mark.parametrize("act", [sparsify.inspect, sparsify.optimize])
def test_a_model_that_never_ends_is_not_waited_for(act: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "DEADLINE_S", 0.2)
    act(_endless())


def test_a_pass_that_fails_on_what_no_runtime_takes_blames_the_model() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17, "f" : 1]>
        g (float[M,4] x) => (float[M,4] y) <float[4,4] w = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16}> {
          y = f.layer("", w) }
        <domain: "f", opset_import: ["" : 17]> layer (a, b) => (r) { r = Gemm(a, b) }""")
    with pytest.raises(InputError, match="onnxruntime refuses it"):
        sparsify.inspect(model)
