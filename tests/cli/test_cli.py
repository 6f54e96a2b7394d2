"""The command line as people and programs see it: exit codes, what goes where, what is left on disk."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as xml
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from sparsify import api, runtime
from sparsify.cli import main
from tests import small

INT8 = ("--passes", "cleanup,sparse-int8,fuse-epilogue")  # min_speedup=0: nothing here depends on how fast it is
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSIFY_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small.save(small.mlp(), tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return small.save_feed(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line: exit code, stdout, stderr."""

    def _run(*arguments: object) -> tuple[int, str, str]:
        status = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return _run


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


class TestVerdict:
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

    def test_audit_says_no(self, run: Run, model: Path, data: Path, tmp_path: Path) -> None:
        other = small.save(small.mlp(seed=7), tmp_path, "other.onnx")
        status, out, err = run("audit", model, other, "--data", data, "--budget", "cosine>=0.99", "--layers")
        assert status == 1
        assert "BROKEN" in out
        assert "over budget" in err

    def test_audit_says_yes(self, run: Run, model: Path, data: Path) -> None:
        status, out, err = run("audit", model, model, "--data", data, "--budget", "max_abs<=0")
        assert (status, err) == (0, "")
        assert "holds" in out


def _not_onnx(folder: Path) -> list[object]:
    (folder / "bad.onnx").write_text("this is no model")
    return ["optimize", folder / "bad.onnx"]


def _missing_key(folder: Path) -> list[object]:
    small.save_feed(folder, "bad.npz", wrong=small.feed()["x"])
    return ["optimize", folder / "model.onnx", "--data", folder / "bad.npz"]


def _wrong_dtype(folder: Path) -> list[object]:
    small.save_feed(folder, "bad.npz", x=small.feed()["x"].astype(np.float64))
    return ["optimize", folder / "model.onnx", "--data", folder / "bad.npz"]


def _no_rows(folder: Path) -> list[object]:
    small.save_feed(folder, "bad.npz", x=small.feed()["x"][:0])
    return ["optimize", folder / "model.onnx", "--data", folder / "bad.npz"]


def _pickled(folder: Path) -> list[object]:
    small.save_feed(folder, "bad.npz", x=np.array([{}, None], dtype=object))
    return ["audit", folder / "model.onnx", folder / "model.onnx", "--data", folder / "bad.npz"]


def _cut_short(folder: Path) -> list[object]:
    (folder / "bad.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-100])
    return ["optimize", folder / "bad.onnx"]


def _empty_folder(folder: Path) -> list[object]:
    (folder / "empty").mkdir()
    return ["optimize", folder / "model.onnx", "--data", folder / "empty"]


def _different_inputs(folder: Path) -> list[object]:
    other = onnx.load(folder / "model.onnx")
    other.graph.input[0].name = other.graph.node[0].input[0] = "z"
    return ["bench", folder / "model.onnx", small.save(other, folder, "other.onnx")]


MISUSE: dict[str, tuple[int, Callable[[Path], list[object]], str]] = {
    "not ONNX": (3, _not_onnx, "not an ONNX model"),
    "sensitivity without data": (2, lambda f: ["inspect", f / "model.onnx", "--sensitivity"], "--data"),
    "no such file": (3, lambda f: ["inspect", f / "absent.onnx"], "no such file"),
    "missing data key": (3, _missing_key, "input `x` is missing"),
    "wrong dtype": (3, _wrong_dtype, "input `x` is float64"),
    "no data": (3, lambda f: ["optimize", f / "model.onnx", "--data", f / "absent"], "no such file or folder"),
    "bench of what is not there": (3, lambda f: ["bench", f / "model.onnx", f / "absent.onnx"], "no such file"),
    "unknown pass": (
        2,
        lambda f: ["optimize", f / "model.onnx", "--passes", "sparse-int9"],
        "did you mean `sparse-int8`",
    ),
    "broken pipeline": (2, lambda f: ["optimize", f / "model.onnx", "--passes", "prune{"], "^"),
    "pass to explain": (2, lambda f: ["passes", "prun"], "did you mean `prune`"),
    "level and passes": (2, lambda f: ["optimize", f / "model.onnx", "-O2", "--passes", "prune"], "exclude each other"),
    "level": (2, lambda f: ["optimize", f / "model.onnx", "-O7"], "-O"),
    "target": (2, lambda f: ["optimize", f / "model.onnx", "--target", "gpu"], "portable, stock"),
    "unreachable budget": (
        2,
        lambda f: ["optimize", f / "model.onnx", "--data", f / "data.npz", "--budget", "cosine>=2"],
        "between -1 and 1",
    ),
    "unknown metric": (
        2,
        lambda f: ["audit", f / "model.onnx", f / "model.onnx", "--data", f / "data.npz", "--budget", "cosin>=0.9"],
        "did you mean `cosine`",
    ),
    "budget without data": (2, lambda f: ["optimize", f / "model.onnx", "--budget", "cosine>=0.9"], "--data"),
    "output is the input": (2, lambda f: ["optimize", f / "model.onnx", "-o", f / "model.onnx"], "overwrite the input"),
    "output in no folder": (2, lambda f: ["optimize", f / "model.onnx", "-o", f / "no" / "x.onnx"], "does not exist"),
    "report of no kind": (2, lambda f: ["optimize", f / "model.onnx", "--report", f / "r.pdf"], ".json"),
    "output is a folder": (2, lambda f: ["optimize", f / "model.onnx", "-o", f], "this is a folder"),
    "dump into a file": (
        2,
        lambda f: ["optimize", f / "model.onnx", *INT8, "--dump-after", "cleanup", f / "data.npz"],
        "a file has this name",
    ),
    "no rows": (3, _no_rows, "there is no sample in it"),
    "pickled data": (3, _pickled, "Python objects"),
    "cut short": (3, _cut_short, "cut short"),
    "folder for a model": (3, lambda f: ["inspect", f], "this is a folder"),
    "empty data folder": (3, _empty_folder, "there is no `.npz` here"),
    "bench of different models": (3, _different_inputs, "the models take different inputs: x; z"),
    "threads": (2, lambda f: ["bench", f / "model.onnx", "--threads", "-1"], "--threads"),
    "no such command": (2, lambda f: ["optimise"], "optimise"),
    "no such option": (2, lambda f: ["optimize", f / "model.onnx", "--fast"], "--fast"),
    "no model": (2, lambda f: ["optimize"], "MODEL"),
    "audit without data": (2, lambda f: ["audit", f / "model.onnx", f / "model.onnx"], "--data"),
}


class TestErrors:
    @pytest.mark.parametrize("case", MISUSE, ids=str)
    def test_one_clear_error_and_nothing_written(
        self, run: Run, model: Path, data: Path, tmp_path: Path, case: str
    ) -> None:
        expected, arguments, says = MISUSE[case]
        command = arguments(tmp_path)
        before = sorted(p.name for p in tmp_path.iterdir())
        status, out, err = run(*command)
        assert status == expected
        assert out == ""
        what, _, hint = err.partition("\n\nhint: ")
        assert what.startswith("error: ")
        assert "\n" not in what
        assert hint.strip()
        assert says in err
        assert "Traceback" not in err
        assert sorted(p.name for p in tmp_path.iterdir()) == before

    def test_a_bug_of_ours_is_one_line_and_says_how_to_report_it(
        self, run: Run, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: object, **__: object) -> None:
            raise RuntimeError("the impossible\nhappened")

        monkeypatch.setattr(api, "optimize", fails)
        status, _, err = run("optimize", model)
        assert status == 4
        assert err.startswith("error: RuntimeError: the impossible\n\nhint: this is a bug of ours")
        assert "Traceback" not in err
        for command in (["--debug", "optimize", model], ["optimize", model, "--debug"]):
            status, _, err = run(*command)
            assert status == 4
            assert "Traceback" in err

    def test_interrupted(self, run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(api, "optimize", interrupted)
        status, out, err = run("optimize", model)
        assert (status, out, err) == (130, "", "interrupted\n")
        assert [p.name for p in model.parent.iterdir()] == ["model.onnx"]


class TestOtherCommands:
    def test_inspect(self, run: Run, tmp_path: Path) -> None:
        model = small.save(small.mlp(sparsity=0.9), tmp_path)
        status, out, _ = run("inspect", model, "--rows", 4, "--threads", 1, "--report", tmp_path / "r.json")
        assert status == 0
        assert f"{small.INPUTS}x{small.HIDDEN}" in out
        rows = json.loads((tmp_path / "r.json").read_text())["nodes"]
        assert [row["zeros"] for row in rows] == pytest.approx([0.9, 0.9], abs=0.03)  # three sigma of 3072 draws: 0.016
        assert all(row["dense_ms"] > 0 for row in rows)
        # A gain is told of what would be rewritten, and a reason of what would be left.
        assert all(bool(row["speedup_o2"] and row["speedup_o3"]) != bool(row["note"]) for row in rows)

    def test_inspect_tells_what_the_model_would_miss(self, run: Run, model: Path, data: Path, tmp_path: Path) -> None:
        report = tmp_path / "r.json"
        status, out, _ = run(
            "inspect", model, "--sensitivity", "--data", data, "--memory", 1, "--threads", 1, "--report", report
        )
        assert status == 0
        assert "Sensitivity" in out
        assert "█" in out
        rows = json.loads(report.read_text())["sensitivity"]
        assert all(row["sparsities"] == [0.5, 0.75, 0.875] for row in rows)
        assert all(0 < row["drifts"][0] < row["drifts"][-1] for row in rows)

    def test_bench(self, run: Run, model: Path, data: Path, tmp_path: Path) -> None:
        status, out, _ = run("bench", model, model, "--data", data, "--threads", 1, "--report", tmp_path / "r.json")
        assert status == 0
        assert "1.00x" in out
        found = json.loads((tmp_path / "r.json").read_text())
        assert [m["size_bytes"] for m in found["models"]] == [model.stat().st_size] * 2

    def test_passes(self, run: Run) -> None:
        status, out, err = run("passes")
        assert (status, err) == (0, "")
        for name in ("cleanup", "prune", "sparse-int8", "stamp"):
            assert name in out

    def test_passes_explains_one(self, run: Run) -> None:
        _, out, _ = run("passes", "prune")
        for expected in ("When it refuses:", "pattern", "Pattern", "32:64", "min_size", "int", "4096"):
            assert expected in out

    def test_doctor(self, run: Run) -> None:
        status, out, _ = run("doctor")
        assert status == 0
        for expected in ("CPU", "onnxruntime", "ISA path chosen", "as fast"):
            assert expected in out

    def test_no_command_is_a_call_for_help(self, run: Run) -> None:
        status, out, _ = run()
        assert status == 0
        assert "optimize" in out


def test_what_needs_no_model_loads_no_library() -> None:
    """Help must not take seconds: onnx, onnxruntime and rich are imported by what uses them."""
    code = (
        "import sys; from sparsify.cli import main; main(['optimize', '--help']);"
        "print([m for m in ('numpy', 'onnx', 'onnx_ir', 'onnxruntime', 'onnxscript', 'scipy') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_as_a_process(model: Path) -> None:
    """What a shell sees: nothing in colour, no bar, stdout and stderr apart."""
    command = [sys.executable, "-m", "sparsify"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, check=False)

    done = shell("optimize", str(model), *INT8)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stderr == f"wrote {model.with_name('model.sparse.onnx')}\n"
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert shell("optimize", "-O9", str(model)).returncode == 2
    assert shell("--version").stdout.strip()
