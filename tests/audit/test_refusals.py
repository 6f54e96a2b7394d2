"""What an audit must not call good: each is one error, or a verdict of no, to a program and on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

import sparsify
from sparsify.cli import main
from sparsify.errors import SparsifyError

HEAD = '<ir_version: 8, opset_import: ["" : 17, "com.foo" : 1]> g (float[n,4] x) => '
BASE = HEAD + "(float[n,4] y) { y = Relu(x) }"


def _empty(folder: Path) -> None:
    (folder / "data.npz").unlink()


def _no_rows(folder: Path) -> None:
    np.savez(folder / "data.npz", x=np.zeros((0, 4), np.float32))


def _wrong(**arrays: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: np.savez(folder / "data.npz", **arrays)


CASES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "custom operator": (
        HEAD + "(float[n,4] y) { y = com.foo.Bar(x) }",
        lambda _: None,
        "operator `Bar` of domain `com.foo` is unknown to onnxruntime",
    ),
    "another name": (HEAD + "(float[n,4] z) { z = Relu(x) }", lambda _: None, "outputs differ: the base has y"),
    "one more output": (
        HEAD + "(float[n,4] y, float[n,4] z) { y = Relu(x) z = Relu(x) }",
        lambda _: None,
        "outputs differ: the base has y; the candidate has y, z",
    ),
    "another shape": (HEAD + "(float[4,n] y) { y = Transpose(x) }", lambda _: None, "output `y` is float32 [3, 4]"),
    "another type": (HEAD + "(int64[n,4] y) { y = Cast<to = 7>(x) }", lambda _: None, "but int64 [3, 4] in the candi"),
    "another input": (BASE.replace("x)", "z)"), lambda _: None, "inputs differ: the base has x; the candidate has z"),
    "no data": (BASE, _empty, "there is no `.npz` here"),
    "no rows": (BASE, _no_rows, "empty"),
    "missing key": (BASE, _wrong(z=np.zeros((3, 4), np.float32)), "input `x` is missing"),
    "type": (BASE, _wrong(x=np.zeros((3, 4))), "input `x` is float64, expected float32 [n, 4]"),
    "rank": (BASE, _wrong(x=np.zeros(4, np.float32)), "input `x` has shape [4], expected float32 [n, 4]"),
    "pickle": (BASE, _wrong(x=np.array([{}], dtype=object)), "key `x` holds Python objects"),
}


def _save(text: str, path: Path) -> Path:
    onnx.save(onnx.parser.parse_model(text), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base and data for it; the data is a folder of one feed."""
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "data.npz", x=np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4))
    _save(BASE, tmp_path / "base.onnx")
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_one_clear_error(folder: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    text, spoil, says = CASES[case]
    other = _save(text, folder / "other.onnx")
    spoil(folder / "data")
    with pytest.raises(SparsifyError) as error:
        sparsify.audit(folder / "base.onnx", other, folder / "data", budget="max_abs<=1")
    assert says in str(error.value)
    assert main(["audit", str(folder / "base.onnx"), str(other), "--data", str(folder / "data")]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: {error.value}\n"
    if case == "custom operator":
        assert f"({other})" in err


def test_the_model_at_fault_may_be_the_base(folder: Path) -> None:
    other = _save(CASES["custom operator"][0], folder / "other.onnx")
    with pytest.raises(SparsifyError) as error:
        sparsify.audit(other, folder / "base.onnx", folder / "data")
    assert error.value.where == str(other)


@pytest.mark.parametrize("side", ["base", "candidate"])
def test_not_a_number_in_one_model_is_a_verdict_of_no(
    folder: Path, capsys: pytest.CaptureFixture[str], side: str
) -> None:
    """No budget forbids it: it is always forbidden."""
    other = _save(HEAD + "(float[n,4] y) { s = Sqrt(x) y = Mul(s, s) }", folder / "other.onnx")
    models = [folder / "base.onnx", other]
    models = models if side == "candidate" else models[::-1]
    report = sparsify.audit(*models, folder / "data")
    assert not report
    assert report.outputs["y"].mismatches == 6
    status = main(["audit", *map(str, models), "--data", str(folder / "data"), "--report", str(folder / "r.json")])
    assert status == 1
    said = capsys.readouterr()
    assert "`y` has 6 elements that are NaN or infinite in one model only" in said.err
    assert json.loads((folder / "r.json").read_text())["accepted"] is False


def test_where_nothing_can_be_compared_nothing_passes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = HEAD + "(float[n,4] y) { z = Sub(x, x) y = Div(z, z) }"
    models = [str(_save(text, folder / name)) for name in ("a.onnx", "b.onnx")]
    assert main(["audit", *models, "--data", str(folder / "data")]) == 3
    assert "nothing could be compared" in capsys.readouterr().err
