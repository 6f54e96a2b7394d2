"""Every wrong input ends in one clear error of the right exit code, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests import small
from tests.cli import INT8, Run


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
}


@pytest.mark.parametrize("case", MISUSE, ids=str)
def test_one_clear_error_and_nothing_written(run: Run, model: Path, data: Path, tmp_path: Path, case: str) -> None:
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
