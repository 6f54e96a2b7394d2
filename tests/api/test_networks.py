"""Networks from SciPy matrices: right, and never dense."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsify
from sparsify import modelio, runtime, storage
from sparsify.errors import InputError
from tests.strategies import random_sparse

EPS = float(np.finfo(np.float32).eps)


def forward(layers: list[tuple], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float64 y, and for each entry a bound on what float32 may make of it.

    A sum of n float32 products in any order is within n eps sum |x_k w_k| (Higham, section 3.1: gamma_n <= 1.01 n u
    and u = eps / 2, so n eps has a factor two in hand for the bias and for float32's next layer). An error of the
    inputs goes through |W|; Relu does not widen it.
    """
    error = np.zeros_like(x, np.float64)
    value = x.astype(np.float64)
    for matrix, bias, activation in layers:
        dense = matrix.toarray().astype(np.float64)
        size = np.abs(value) @ np.abs(dense) + np.abs(bias)
        error = error @ np.abs(dense) + (dense.shape[0] + 2) * EPS * (size + error @ np.abs(dense))
        value = value @ dense + bias
        if activation == "Relu":
            value = np.maximum(value, 0)
    return value, error


@given(
    widths=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    rows=st.integers(1, 5),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    relu=st.booleans(),
    form=st.sampled_from(["csr", "csc", "coo", "lil", "dok"]),
)
@settings(max_examples=20, deadline=None)
def test_computes_what_the_matrices_say(widths: list[int], rows: int, density: float, relu: bool, form: str) -> None:
    random = np.random.default_rng(sum(widths))
    layers = [
        (
            scipy.sparse.coo_array(random_sparse((k, n), density, seed=k)).asformat(form),
            random.standard_normal(n).astype(np.float32),
            "Relu" if relu else None,
        )
        for k, n in itertools.pairwise(widths)
    ]
    x = random.standard_normal((rows, widths[0])).astype(np.float32)
    model = sparsify.from_scipy(layers)
    expected, bound = forward(layers, x)
    for native in (False, True):
        y = runtime.run(runtime.session(model, native=native), {"x": x})["y"]
        assert (np.abs(y - expected) <= bound).all()


@pytest.mark.parametrize(
    ("density", "activation", "operators"),
    [
        (1.0, None, ["Gemm"]),
        (0.8, "Tanh", ["Gemm", "Tanh"]),
        (0.7, None, ["SparseMatMulColumns"]),
        (1.0, "Gelu", ["SparseMatMulColumnsGelu"]),  # ONNX has no such operator at this opset
    ],
)
def test_what_is_smaller_dense_is_a_gemm(density: float, activation: str | None, operators: list[str]) -> None:
    matrix = scipy.sparse.random(40, 10, density=density, random_state=0, dtype=np.float32)
    model = sparsify.from_scipy([(matrix, None, activation)])
    assert [node.op_type for node in model.graph] == operators


def test_a_matrix_whose_dense_form_could_not_exist() -> None:
    size = 10**6
    random = np.random.default_rng(0)
    rows, columns = random.integers(0, size, 2 * size), np.repeat(np.arange(size), 2)
    matrix = scipy.sparse.coo_array((np.ones(2 * size, np.float32), (rows, columns)), shape=(size, size))
    model = sparsify.from_scipy([(matrix, None, None)])
    onnx.checker.check_model(modelio.to_proto(model))
    x = np.zeros((1, size), np.float32)
    x[0, rows[:2]] = 1.0
    y = runtime.run(runtime.session(model, native=False), {"x": x})["y"]
    assert np.array_equal(y, x @ scipy.sparse.csc_array(matrix))


def test_a_generator_of_layers_builds_what_memory_need_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    sizes = [300, 20_000, 20_000, 7]
    layers = [
        (scipy.sparse.random(k, n, density=0.002, random_state=k, dtype=np.float32), None, "Relu")
        for k, n in itertools.pairwise(sizes)
    ]
    whole = sparsify.from_scipy(layers)
    monkeypatch.setattr(storage, "LARGE_BYTES", 1_000_000)
    streamed = sparsify.from_scipy(layer for layer in layers)
    assert not storage.is_large(whole.graph)
    assert storage.is_large(streamed.graph)
    assert isinstance(streamed.graph.initializers["layer1.values"].const_value, storage.Stored)
    modelio.save(streamed, tmp_path / "network.onnx")
    x = random.standard_normal((3, 300)).astype(np.float32)
    outputs = [runtime.run(runtime.session(m), {"x": x})["y"] for m in (whole, tmp_path / "network.onnx")]
    assert np.array_equal(*outputs)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ([], "needs a layer"),
        ([(np.eye(3), None, None)], "must be a SciPy sparse matrix, got ndarray"),
        ([(scipy.sparse.eye_array(3), np.zeros(4), None)], r"bias has shape \[4\]"),
        ([(scipy.sparse.eye_array(3), None, "Softmax")], "no activation `Softmax`"),
        ([(scipy.sparse.eye_array(3), None, None), (scipy.sparse.eye_array(4), None, None)], "4 inputs, and 3 come in"),
        ([(scipy.sparse.eye_array(3) * np.nan, None, None)], "NaN"),
    ],
)
def test_refuses_what_makes_no_network(layers: list[tuple], says: str) -> None:
    with pytest.raises(InputError, match=says):
        sparsify.from_scipy(layers)
