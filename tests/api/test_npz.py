"""Networks kept in `.npz`: what is written comes back, and what is damaged or dangerous is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import sparsify
from sparsify import modelio
from sparsify.errors import InputError

Arrays = dict[str, Any]


def network() -> list[tuple]:
    rng = np.random.default_rng(0)
    first = scipy.sparse.random_array((12, 30), density=0.1, rng=rng, dtype=np.float64).tocsr()  # the reference's type
    second = scipy.sparse.random_array((30, 5), density=0.2, rng=rng, dtype=np.float32).tocoo()
    return [(first, rng.normal(size=30).astype(np.float32), "Relu"), (second, None, None)]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    sparsify.save_npz(network(), tmp_path / "network.npz")
    return tmp_path / "network.npz"


def test_what_is_saved_is_the_same_network(saved: Path) -> None:
    assert modelio.serialize(sparsify.from_npz(saved)) == modelio.serialize(sparsify.from_scipy(network()))


def test_the_layout_is_the_documented_one(saved: Path) -> None:
    with np.load(saved, allow_pickle=False) as arrays:
        assert sorted(arrays.files) == sorted(
            ["activation1", "b1", *(f"w{i}.{part}" for i in (1, 2) for part in ("data", "indices", "indptr", "shape"))]
        )
        assert arrays["w1.shape"].tolist() == [12, 30]


def _set(key: str, value: Any) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.update({key: np.asarray(value)})


def _without(key: str) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.pop(key)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set("w1.indices", np.full(36, 99, np.int32)), "`w1` is no sparse matrix"),
        (_set("w1.indices", np.full(36, -1, np.int32)), "`w1` is no sparse matrix"),
        (_set("w1.indptr", np.array([0, 36] * 6 + [0], np.int32)), "`w1` is no sparse matrix"),
        (_set("w1.indptr", np.zeros(13)), "`w1` is no sparse matrix"),
        (_set("w1.shape", [12, 30, 1]), "not two whole numbers"),
        (_set("w1.shape", [-12, 30]), "`w1` is no sparse matrix"),
        (_set("w1.data", np.array(["a"] * 36)), "no numbers"),
        (_set("w1.data", np.full(36, np.nan)), "NaN or an infinity"),
        (_set("b1", np.zeros(7)), r"bias has shape \[7\]"),
        (_set("activation1", "AllReLU"), "no activation `AllReLU`"),
        (_without("w1.indptr"), "no array `w1.indptr`"),
        (_without("w1.data"), "no array `w1.data`"),
        (_without("w2.data"), "belongs to no layer"),
        (_set("b7", np.zeros(5)), "`b7` belongs to no layer"),
        (_set("w2.shape", [31, 5]), "`w2` is no sparse matrix"),
    ],
)
def test_damaged_files_are_refused(saved: Path, change: Callable[[Arrays], None], says: str) -> None:
    with np.load(saved) as archive:
        arrays = dict(archive)
    assert arrays["w1.data"].size == 36
    change(arrays)
    np.savez(saved, **arrays)
    with pytest.raises(InputError, match=says):
        sparsify.from_npz(saved)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "pickled.npz"
    np.savez(path, **{"w1.data": np.array([{}], object)})
    with pytest.raises(InputError, match="holds Python objects"):
        sparsify.from_npz(path)
    with pytest.raises(InputError):
        sparsify.from_npz(tmp_path / "none.npz")
