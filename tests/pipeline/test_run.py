"""Running pipelines: what is verified, what is measured, and who is blamed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from sparsify import graph, modelio, runtime, storage
from sparsify.errors import ExitStatus, InputError, UsageError
from sparsify.graph import linear_layers
from sparsify.passes.detect import Detect
from sparsify.passes.fuse_epilogue import FuseEpilogue
from sparsify.passes.prune import Prune
from sparsify.passes.sparse_fp32 import SparseFp32
from sparsify.passes.sparse_int8 import SparseInt8
from sparsify.patterns import Pattern
from sparsify.pipeline import PassError, Pipeline, nodes, parse, takeback
from sparsify.rewrite import LISTENER, Change, Event, Pass
from tests import small


@pytest.fixture
def model() -> ir.Model:
    return modelio.load(small.mlp())


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    return {n: v.const_value.numpy().copy() for n, v in model.graph.initializers.items() if v.const_value is not None}


@dataclass(frozen=True)
class Raises(Pass):
    """A pass with a bug."""

    name: ClassVar[str] = "raises"

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        yield Change("h", "about to fail")
        raise ZeroDivisionError("division by zero")


@dataclass(frozen=True)
class Breaks(Pass):
    """A pass that leaves a broken model behind."""

    name: ClassVar[str] = "breaks"
    how: str = "nan"

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        if self.how == "nan":
            w = model.graph.initializers["w2"]
            w.const_value = ir.tensor(np.full((small.HIDDEN, small.OUTPUTS), np.nan, np.float32), name="w2")
        elif self.how == "shape":
            w, b = model.graph.initializers["w2"], model.graph.initializers["b2"]
            w.const_value = ir.tensor(np.ones((small.HIDDEN, 1), np.float32), name="w2")
            b.const_value = ir.tensor(np.ones(1, np.float32), name="b2")
        elif self.how == "name":
            model.graph.outputs[0].name = "z"
        elif self.how == "checker":
            model.graph[2].op_type = "NoSuchOperator"
        yield Change("y", self.how)


class TestVerify:
    @pytest.mark.parametrize(
        ("how", "says"),
        [
            ("nan", "`y` is no longer finite"),
            ("shape", r"`y` is float32\[24, 1\], was float32\[24, 32\]"),
            ("name", r"outputs are \['z'\], were \['y'\]"),
            ("checker", "onnx.checker refuses the model"),
        ],
    )
    def test_blames_the_pass_that_broke_the_model(self, model: ir.Model, how: str, says: str) -> None:
        with pytest.raises(PassError, match=says) as caught:
            Pipeline((Detect(), Breaks(how))).run(model, sample=small.feed())
        assert "`breaks`" in caught.value.what
        assert caught.value.where.endswith("after detect")
        assert caught.value.status is ExitStatus.BUG

    def test_blames_the_pass_that_fails(self, model: ir.Model) -> None:
        with pytest.raises(PassError, match="`raises` failed with ZeroDivisionError: division by zero") as caught:
            Pipeline((Detect(), Raises())).run(model)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    @pytest.mark.parametrize("how", ["nan", "shape", "name"])
    def test_runs_a_large_model_once_at_the_end(self, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
        monkeypatch.setattr(storage, "LARGE_BYTES", 1000)
        runs: list[object] = []
        run = runtime.run
        monkeypatch.setattr(runtime, "run", lambda *args: runs.append(args) or run(*args))
        told: list[str] = []
        large, sample = modelio.load(small.mlp()), small.feed()
        assert storage.is_large(large.graph)
        report = Pipeline((SparseInt8(), FuseEpilogue())).run(
            large,
            sample=sample,
            answers={"y": np.zeros((24, 32), np.float32)},
            progress=lambda *args: told.append(args[2]),
        )
        assert report.modified
        assert len(runs) == 1
        assert told[-2:] == ["verify the result", "done"]
        with pytest.raises(PassError, match="the model that the passes made is broken") as caught:
            Pipeline((Breaks(how), Detect())).run(modelio.load(small.mlp()), sample=sample)
        assert caught.value.where.endswith(",detect")

    def test_what_was_not_finite_may_stay_so(self, model: ir.Model) -> None:
        sample = small.feed()
        sample["x"][0, 0] = np.inf
        Pipeline((SparseFp32(),)).run(model, sample=sample)

    def test_refuses_a_model_that_onnxruntime_cannot_run(self) -> None:
        proto = small.mlp()
        proto.graph.node[2].op_type, proto.graph.node[2].domain = "Mystery", "nobody.knows"
        proto.opset_import.append(onnx.helper.make_opsetid("nobody.knows", 1))
        with pytest.raises(InputError, match="Mystery"):
            Pipeline((Detect(),)).run(modelio.load(proto), sample=small.feed())

    def test_looks_again_after_pruning_was_taken_back(self, model: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
        def restore(keeper: takeback.Keeper, model: ir.Model) -> dict[str, float]:
            spoilt = np.full((small.HIDDEN, small.OUTPUTS), np.nan, np.float32)
            model.graph.initializers["w2"].const_value = ir.tensor(spoilt, name="w2")
            return {"MatMul -> h": 0.0}

        monkeypatch.setattr(takeback.Keeper, "restore", restore)
        passes = (Prune(min_size=0), SparseFp32(min_sparsity=0.9, min_speedup=1e9))
        with pytest.raises(PassError, match="no longer finite"):
            Pipeline(passes).run(model, sample=small.feed())


class TestSteps:
    def test_say_what_each_pass_did(self, model: ir.Model) -> None:
        report = Pipeline((Detect(), Prune(min_size=0), SparseInt8())).run(model, sample=small.feed())
        detect, prune, sparse = report.steps
        assert (detect.changes, len(detect.findings), detect.bytes[0]) == ((), 2, detect.bytes[1])
        assert len(prune.changes) == len(sparse.changes) == 2
        assert sparse.bytes[1] < sparse.bytes[0] == prune.bytes[1]
        assert sparse.bytes[1] == len(modelio.serialize(model))
        assert report.pipeline == "detect,prune{min_size=0},sparse-int8"
        assert all(step.seconds > 0 for step in report.steps)

    def test_progress_is_told_before_each_pass_after_each_node_and_at_the_end(self, model: ir.Model) -> None:
        told: list[tuple[int, int, str]] = []
        Pipeline((Detect(), SparseFp32())).run(model, progress=lambda *args: told.append(args))
        assert told == [
            (0, 2, "verify the input"),
            *((0, 2, f"detect{nodes}") for nodes in ("", ", 1 node", ", 2 nodes")),
            *((1, 2, f"sparse-fp32{nodes}") for nodes in ("", ", 1 node", ", 2 nodes")),
            (2, 2, "done"),
        ]
        assert LISTENER not in model.meta

    @pytest.mark.parametrize("error", [ValueError, onnx.checker.ValidationError])
    def test_a_model_that_the_checker_cannot_take_is_not_held_against_it(
        self, model: ir.Model, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
    ) -> None:
        def refuse(_: object) -> None:
            raise error("cannot be parsed")

        monkeypatch.setattr(onnx.checker, "check_model", refuse)
        assert Pipeline((SparseInt8(min_sparsity=0),)).run(model, sample=small.feed()).modified

    def test_dump_after(self, model: ir.Model, tmp_path: Path) -> None:
        pipeline = Pipeline((Prune(min_size=0), SparseFp32(min_sparsity=0.9), Prune(Pattern(8, 64), min_size=0)))
        pipeline.run(model, dump_after=("prune", tmp_path / "new" / "folder"))
        names = sorted(p.name for p in (tmp_path / "new" / "folder").iterdir())
        assert names == ["00-prune.onnx", "02-prune.onnx"]
        first, last = (weights(modelio.load(tmp_path / "new" / "folder" / name))["w1"] for name in names)
        assert np.count_nonzero(first) == small.INPUTS * small.HIDDEN // 2
        assert np.count_nonzero(last) == small.INPUTS * small.HIDDEN // 8

    def test_dump_after_a_pass_that_does_not_run(self, model: ir.Model, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="`prune` is not in the pipeline"):
            Pipeline((Detect(),)).run(model, dump_after=("prune", tmp_path))


class TestRows:
    def test_are_those_of_the_sample(self, model: ir.Model) -> None:
        Pipeline((Detect(), SparseFp32(min_sparsity=1.0))).run(model, sample=small.feed(rows=7))
        assert [layer.node.meta["rows"] for layer in graph.linear_layers(model)] == [7, 7]

    def test_are_not_taken_from_a_sample_that_means_nothing(self, model: ir.Model) -> None:
        Pipeline((SparseFp32(min_sparsity=1.0),)).run(model, sample=small.feed(rows=7), observe=False)
        assert all("rows" not in layer.node.meta for layer in graph.linear_layers(model))


class TestTakeBack:
    """Pruning for a pass that then refuses would cost accuracy and buy nothing."""

    NEVER = SparseFp32(min_speedup=1e9)

    def test_gives_unused_pruning_back(self, model: ir.Model) -> None:
        before = weights(model)
        report = Pipeline((Prune(min_size=0), self.NEVER)).run(model, sample=small.feed())
        for name, array in weights(model).items():
            assert np.array_equal(array, before[name])
        table = nodes.rows(report)
        assert [row["decision"] for row in table] == ["left", "left"]
        assert all("taken back" in row["reason"] and row["sparsity"] < 0.01 for row in table)
        assert not nodes.gained(report, table)

    def test_keeps_what_was_asked_for_alone(self, model: ir.Model) -> None:
        report = Pipeline((Prune(min_size=0), SparseFp32(min_sparsity=0.9))).run(model, sample=small.feed())
        assert np.mean(weights(model)["w1"] == 0) == 0.5
        assert [row["decision"] for row in nodes.rows(report)] == ["prune", "prune"]


def test_smoothing_is_told_and_is_no_decision() -> None:
    def table(passes: str) -> tuple[bool, dict[str, Any], dict[str, Any]]:
        model = modelio.load(small.normalised())
        first, second = [layer.name for layer in linear_layers(model)]
        report = Pipeline(parse(passes)).run(model, calibration=[small.feed()])
        rows = nodes.rows(report)
        by_name = {row["name"]: row for row in rows}
        return nodes.gained(report, rows), by_name[first], by_name[second]

    gained, first, second = table("smooth,sparse-int8{min_speedup=1e9}")
    assert not gained
    assert (first["decision"], second["decision"], second["refined"]) == ("left", "left", [])
    assert "inputs divided" in first["refined"][0]
    assert "less than the 1e+09x asked for" in first["reason"]
    gained, first, _ = table("smooth,sparse-int8")
    assert gained
    assert first["decision"] == "sparse-int8"
    assert "inputs divided" in first["refined"][0]


def test_rows_of_a_report_follow_the_node(model: ir.Model) -> None:
    report = Pipeline((Detect(), Prune(min_size=0), SparseInt8())).run(model, sample=small.feed())
    first, second = nodes.rows(report)
    assert first["shape"] == [small.INPUTS, small.HIDDEN]
    assert second["shape"] == [small.HIDDEN, small.OUTPUTS]
    assert first["decision"] == "sparse-int8"
    assert 0.5 <= first["sparsity"] < 0.55  # half was pruned, and small weights are rounded to 0
    y = runtime.run(runtime.session(model), small.feed())["y"]
    assert y.shape == (small.SAMPLES, small.OUTPUTS)


def test_what_was_measured_is_the_reason_that_counts(
    model: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSIFY_CACHE", str(tmp_path))
    passes = (SparseInt8(min_speedup=1e9), SparseFp32(min_sparsity=0.5))
    table = nodes.rows(Pipeline(passes).run(model, sample=small.feed()))
    for row in table:
        assert row["decision"] == "left"
        assert row["dense_ms"] > 0
        assert "50%" not in row["reason"]
