"""Costs: both sides compute the same layer, and what was measured is remembered. No times are judged here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sparsify import cost, formats, ops, runtime
from sparsify.ops import Activation, Operator, Values
from tests.references import ACTIVATIONS, body_bound

K, N, ROWS = 70, 24, 5
RNG = np.random.default_rng(0)
MATRIX = (RNG.standard_normal((K, N)) * (RNG.random((K, N)) < 0.3)).astype(np.float32)
BIAS = RNG.standard_normal(N).astype(np.float32)
ENCODED = formats.encode(MATRIX)
ARRAYS = ops.inputs_of(ENCODED, BIAS, None)


def operator(activation: Activation) -> Operator:
    return Operator(Values.FP32, encoding=ENCODED.encoding, activation=activation)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cost.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(cost, "_measured", {})
    monkeypatch.setattr(cost, "_RUNS", 3)
    return tmp_path


@pytest.mark.parametrize("activation", list(Activation))
def test_both_sides_compute_the_layer(activation: Activation):
    x = RNG.standard_normal((ROWS, K)).astype(np.float32)
    exact = x.astype(np.float64) @ MATRIX.astype(np.float64) + BIAS
    # A float32 dot product of K terms and a bias is off by at most (K + 1) 2^-24 sum |x w| to first order (Higham,
    # Accuracy and Stability, 3.1). No activation has a slope over 1.13; erf in float32 is good to 4 ulp of 1.
    terms = np.abs(x) @ np.abs(MATRIX) + np.abs(BIAS)
    tolerance = 2 * (K + 1) * 2.0**-24 * terms
    if activation:
        tolerance += 8 * 2.0**-23 * np.abs(exact) + body_bound(activation.value, exact)
        exact = ACTIVATIONS[activation.value][0](exact)
    dense = cost.dense_model(MATRIX, BIAS, activation)
    sparse = cost.operator_model(K, ARRAYS, operator(activation))
    for model in (dense, sparse):
        y = runtime.run(runtime.session(model), {"X": x})["Y"]
        assert (np.abs(y - exact) <= tolerance).all()


def test_dense_side_has_only_what_the_layer_has():
    plain = cost.dense_model(MATRIX, np.zeros(N, np.float32), Activation.NONE)
    assert [n.op_type for n in plain.graph] == ["MatMul"]
    biased = cost.dense_model(MATRIX, BIAS, Activation.RELU)
    assert [n.op_type for n in biased.graph] == ["MatMul", "Add", "Relu"]


def test_both_sides_of_sharing_compute_the_same():
    x = RNG.standard_normal((ROWS, K)).astype(np.float32)
    apart, shared = (cost.sharing_model(K, 3, shared=once) for once in (False, True))
    assert [n.op_type for n in apart.graph] == ["SparseMatMulInt8"] * 3 + ["Sum"]
    assert [n.op_type for n in shared.graph] == [ops.QUANTIZE, *["SparseMatMulInteger"] * 3, "Sum"]
    found = [runtime.run(runtime.session(model), {"X": x})["Y"] for model in (apart, shared)]
    assert np.array_equal(*found)


def test_sharing_is_measured_once_for_what_it_depends_on(folder: Path):
    first = cost.measure_sharing(K, 2, rows=3, threads=1)
    assert cost.measure_sharing(K, 2, rows=3, threads=1) is first
    for k, readers, rows in ((K + 1, 2, 3), (K, 3, 3), (K, 2, 4)):
        cost.measure_sharing(k, readers, rows=rows, threads=1)
    assert len(list((folder / "cost").iterdir())) == 4


def test_measures_once_and_remembers_on_disk(folder: Path, monkeypatch: pytest.MonkeyPatch):
    first = cost.measure(MATRIX, ARRAYS, operator(Activation.RELU), rows=ROWS, threads=1)
    assert first.speedup == first.dense_ms / first.rewritten_ms
    assert cost.measure(MATRIX, ARRAYS, operator(Activation.RELU), rows=ROWS, threads=1) is first
    (path,) = (folder / "cost").iterdir()
    kept = json.loads(path.read_text())
    assert kept["shape"] == [K, N]
    assert kept["nnz"] == np.count_nonzero(MATRIX)
    assert kept["operator"] == operator(Activation.RELU).name
    # Another process: only the disk knows, and what it knows is what is used.
    kept["cost"] = {"dense_ms": 6.0, "rewritten_ms": 2.0}
    path.write_text(json.dumps(kept))
    monkeypatch.setattr(cost, "_measured", {})
    assert cost.measure(MATRIX, ARRAYS, operator(Activation.RELU), rows=ROWS, threads=1).speedup == 3


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"cost": {}}',
        '{"cost": {"dense_ms": "x", "rewritten_ms": 1}}',
        '{"cost": {"dense_ms": 1, "rewritten_ms": 0}}',
        '{"cost": {"dense_ms": NaN, "rewritten_ms": 1}}',
        '{"cost": null}',
        "\xff",
    ],
)
def test_measures_again_when_the_cache_is_damaged(folder: Path, monkeypatch: pytest.MonkeyPatch, content: str):
    cost.measure(MATRIX, ARRAYS, operator(Activation.NONE), rows=ROWS, threads=1)
    (path,) = (folder / "cost").iterdir()
    path.write_text(content, encoding="latin-1")
    monkeypatch.setattr(cost, "_measured", {})
    again = cost.measure(MATRIX, ARRAYS, operator(Activation.NONE), rows=ROWS, threads=1)
    assert json.loads(path.read_text())["cost"]["dense_ms"] == again.dense_ms


def test_measures_without_a_folder_to_write_to(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "file").write_text("in the way")
    monkeypatch.setenv(cost.CACHE_VARIABLE, str(folder / "file"))
    assert cost.measure(MATRIX, ARRAYS, operator(Activation.NONE), rows=ROWS, threads=1).speedup > 0


def test_other_rows_threads_operators_or_patterns_are_other_measurements(folder: Path):
    balanced = np.zeros((64, 16), np.float32)
    balanced[:4] = 1
    skewed = np.zeros((64, 16), np.float32)
    skewed[:, 0] = 1  # as many non-zeros, but the kernel runs through 64 positions a column instead of 4
    assert cost.padded(balanced) == 4 * 16
    assert cost.padded(skewed) == 64 * 16
    none, relu = operator(Activation.NONE), operator(Activation.RELU)
    facts = [
        cost._facts(balanced, none.name, True, 1, 1),
        cost._facts(balanced, none.name, True, 2, 1),
        cost._facts(balanced, none.name, True, 1, 2),
        cost._facts(balanced, none.name, False, 1, 1),
        cost._facts(balanced, relu.name, True, 1, 1),
        cost._facts(skewed, none.name, True, 1, 1),
    ]
    assert len({json.dumps(f, sort_keys=True) for f in facts}) == len(facts)


def test_counts_padding_of_ragged_matrices():
    """By hand: 65 x 17 ones are 2 blocks by 2 groups; each group of 16 columns runs 64 + 4 positions."""
    assert cost.padded(np.ones((65, 17), np.float32)) == 2 * 16 * (64 + 4)
    assert cost.padded(np.zeros((0, 3), np.float32)) == 0


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert cost.cache_folder() == tmp_path
    monkeypatch.delenv(cost.CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cost.cache_folder() == Path("/somewhere/sparsify")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cost.cache_folder() == Path.home() / ".cache" / "sparsify"
