"""Labels are read from what people keep them in, and what is none is refused in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsify.audit import labels
from sparsify.errors import InputError


def written(tmp_path: Path, name: str, text: str) -> Path:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("y.txt", "3\n0\n\n12\n", [3, 0, 12]),
        ("y.csv", "label\n1\n2\n", [1, 2]),
        ("y.csv", "id,Label\n7,1\n8,2\n", [1, 2]),
        ("y.csv", "\ufefflabel,id\n1,7\n", [1]),
        ("y.txt", "0.5\n1\n", [0.5, 1.0]),
        ("y.txt", "-1\n1\n", [-1.0, 1.0]),  # no classes are counted from -1
    ],
)
def test_reads_text(tmp_path: Path, name: str, text: str, expected: list[float]):
    found = labels.read(written(tmp_path, name, text))
    assert found.values.tolist() == expected
    assert found.classes == isinstance(expected[0], int)


def test_reads_arrays(tmp_path: Path):
    np.save(tmp_path / "y.npy", np.array([[1], [2]], np.uint8))
    np.savez(tmp_path / "y.npz", labels=[1, 2], other=[3])
    np.savez(tmp_path / "one.npz", y=[1.0, 2.0])
    for name, classes in (("y.npy", True), ("y.npz", True), ("one.npz", False)):
        found = labels.read(tmp_path / name)
        assert (found.values.tolist(), found.classes, found.output) == ([1, 2], classes, None)
    assert labels.read(f"logits={tmp_path / 'y.npy'}").output == "logits"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("y.txt", "cat\ncat\ndog\n", "`cat` is no number"),
        ("y.csv", "id,class\n1,2\n", "no column `label` among id, class"),
        ("y.csv", "label,id\n,2\n", "`` is no number"),
        ("y.txt", "", "these are no labels"),
        ("y.txt", "1\nnan\n", "a label is NaN or infinite"),
        ("y.npy", "no array", "these are no labels"),
        ("y.npz", "no archive", "these are no labels"),
    ],
)
def test_refuses_what_is_no_label(tmp_path: Path, name: str, text: str, words: str):
    with pytest.raises(InputError) as error:
        labels.read(written(tmp_path, name, text))
    assert words in error.value.what
    assert error.value.where.startswith("--labels ")
    assert error.value.hint


def test_refuses_pickles_and_tables(tmp_path: Path):
    np.save(tmp_path / "p.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "t.npy", np.ones((2, 2)))
    np.savez(tmp_path / "k.npz", a=[1], b=[2])
    for name, words in (
        ("p.npy", "allow_pickle"),
        ("t.npy", "[2, 2]"),
        ("k.npz", "its keys are a, b"),
        ("no", "no such"),
    ):
        with pytest.raises(InputError) as error:
            labels.read(tmp_path / name)
        assert words in error.value.what
