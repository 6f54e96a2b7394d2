"""sparsify optimize"""

from __future__ import annotations

import hashlib
import json
import xml.etree.ElementTree as xml
from pathlib import Path

import onnx
import pytest

from sparsify import runtime
from tests import small
from tests.cli import INT8, Run


class TestOptimize:
    def test_writes_beside_the_input_and_says_so_on_stderr(self, run: Run, model: Path) -> None:
        before = model.read_bytes()
        status, out, err = run("optimize", model, *INT8)
        assert status == 0
        assert "sparse-int8" in out
        assert "2 of 2 linear layers were changed" in out
        assert err.strip() == f"wrote {model.with_name('model.sparse.onnx')}"
        assert model.read_bytes() == before

    def test_the_result_is_onnx_that_any_runtime_runs(self, run: Run, model: Path, data: Path) -> None:
        run("optimize", model, *INT8, "--data", data, "-o", model.with_name("out.onnx"))
        onnx.checker.check_model(str(model.with_name("out.onnx")))
        stock = runtime.session(model.with_name("out.onnx"), native=False)
        assert runtime.run(stock, small.feed())["y"].shape == (small.SAMPLES, small.OUTPUTS)

    def test_the_result_says_what_made_it(self, run: Run, model: Path, data: Path) -> None:
        run("optimize", model, *INT8, "--data", data, "--budget", "cosine>=0.5", "-o", model.with_name("out.onnx"))
        said = {p.key: p.value for p in onnx.load(model.with_name("out.onnx")).metadata_props}
        assert said["ai.sparsify.pipeline"].startswith("cleanup,sparse-int8")
        assert said["ai.sparsify.budget"] == "cosine>=0.5"
        assert "y: cosine 0.99" in said["ai.sparsify.drift"]
        assert {"ai.sparsify.version", "ai.sparsify.source"} <= set(said)

    @pytest.mark.parametrize(
        "passes",
        [
            "cleanup,shrink,prune{pattern=16:64,min_size=0},sparse-int8,fuse-epilogue",
            "cleanup,prune{pattern=unstructured,sparsity=0.95,min_size=0},sparse-fp32,fuse-epilogue",
            "cleanup,stock-int8",
        ],
    )
    def test_is_deterministic(self, run: Run, model: Path, data: Path, passes: str) -> None:
        written = []
        for name in ("a.onnx", "b.onnx"):
            status, out, _ = run("optimize", model, "--passes", passes, "--data", data, "-o", model.with_name(name))
            assert status == 0
            assert "2 of 2 linear layers were changed" in out
            written.append(model.with_name(name).read_bytes())
        assert written[0] == written[1]

    def test_reports_carry_what_is_promised(self, run: Run, model: Path, data: Path, tmp_path: Path) -> None:
        files = [tmp_path / f"r{suffix}" for suffix in (".json", ".html", ".md", ".xml")]
        options = [o for file in files for o in ("--report", file)]
        run("optimize", model, *INT8, "--data", data, "--budget", "cosine>=0.5", *options)
        found = json.loads(files[0].read_text())
        assert set(found) >= {
            "base",
            "candidate",
            "machine",
            "versions",
            "pipeline",
            "size",
            "latency",
            "drift",
            "nodes",
        }
        assert found["latency"]["speedup"] > 0
        assert {"median_ms", "p25_ms", "p75_ms"} <= set(found["latency"]["candidate"])
        cosine = found["drift"]["outputs"]["y"]["metrics"]["cosine"]
        assert cosine["low"] <= cosine["value"] <= cosine["high"]
        keys = {"name", "shape", "decision", "format", "sparsity", "reason", "dense_ms", "rewritten_ms", "drift_share"}
        assert len(found["nodes"]) == 2
        assert all(keys <= set(node) for node in found["nodes"])
        assert found["size"]["candidate"] == model.with_name("model.sparse.onnx").stat().st_size
        assert xml.parse(files[3]).getroot()[0].get("failures") == "0"
        assert "<table>" in files[1].read_text()
        assert "| node |" in files[2].read_text()
        written = Path(found["candidate"]["path"])
        assert hashlib.sha256(written.read_bytes()).hexdigest() == found["candidate"]["sha256"]

    def test_dump_after(self, run: Run, model: Path, tmp_path: Path) -> None:
        assert run("optimize", model, *INT8, "--dump-after", "sparse-int8", tmp_path / "dump")[0] == 0
        assert [p.name for p in (tmp_path / "dump").iterdir()] == ["01-sparse-int8.onnx"]

    def test_quiet(self, run: Run, model: Path) -> None:
        assert run("optimize", model, *INT8, "--quiet")[2] == ""


class TestNothingToGain:
    def test_comes_back_unchanged_with_the_reason(self, run: Run, tmp_path: Path) -> None:
        model = small.save(small.no_linear_layer(), tmp_path)
        status, out, _ = run("optimize", model)
        assert status == 0
        assert "unchanged: the model has no linear layer with a constant weight" in out
        assert (tmp_path / "model.sparse.onnx").read_bytes() == model.read_bytes()

    def test_is_refused_under_strict(self, run: Run, tmp_path: Path) -> None:
        model = small.save(small.no_linear_layer(), tmp_path)
        status, _, err = run("optimize", model, "--strict")
        assert status == 1
        assert "no linear layer" in err
        assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]

    def test_of_a_tidy_graph_there_is_nothing_to_clean(self, run: Run, model: Path) -> None:
        assert "unchanged: there was nothing to clean up" in run("optimize", model, "-O0")[1]

    def test_says_why_each_layer_was_left(self, run: Run, model: Path) -> None:
        status, out, _ = run("optimize", model, "-O1")
        assert status == 0
        assert "unchanged: no layer gains: the weight is 0% sparse" in out
        assert model.with_name("model.sparse.onnx").read_bytes() == model.read_bytes()


class TestOverBudget:
    def test_over_budget_writes_the_report_but_no_model(
        self, run: Run, model: Path, data: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out.onnx"
        out.write_bytes(b"what was there before")
        status, _, err = run(
            "optimize",
            model,
            *INT8,
            "--data",
            data,
            "--budget",
            "sqnr_db>=500",
            "-o",
            out,
            "--report",
            tmp_path / "r.xml",
        )
        assert status == 1
        assert err.startswith("error: refused: over budget: `sqnr_db` of `y` is at least")
        assert "hint: " in err
        assert out.read_bytes() == b"what was there before"
        assert xml.parse(tmp_path / "r.xml").getroot()[0].get("failures") == "2"
