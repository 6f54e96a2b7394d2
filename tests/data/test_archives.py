"""NumPy's files, folders and globs of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsify import data
from sparsify.errors import ExitStatus, InputError


def test_reads_one_file_as_one_feed(tmp_path: Path):
    np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.eye(2))
    (found,) = data.load(tmp_path / "a.npz")
    assert found.keys() == {"x", "y"}
    assert found["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("spec", ["", "*.npz", "b*.npz"])
def test_reads_folders_and_globs_in_order_of_names(tmp_path: Path, spec: str):
    for name in ("b2", "b1", "a"):
        np.savez(tmp_path / f"{name}.npz", x=np.array(name))
    (tmp_path / "notes.txt").write_text("not data")
    names = [str(f["x"]) for f in data.load(tmp_path / spec)]
    assert names == (["b1", "b2"] if spec.startswith("b") else ["a", "b1", "b2"])


def test_refuses_pickles_rather_than_running_them(tmp_path: Path):
    np.savez(tmp_path / "p.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match=r"key `x` cannot be read") as error:
        data.load(tmp_path / "p.npz")
    assert error.value.where == str(tmp_path / "p.npz")


def truncated(path: Path) -> None:
    np.savez_compressed(path, x=np.random.default_rng(0).random(1000))
    path.write_bytes(path.read_bytes()[:-1000])


def damaged(path: Path) -> None:
    np.savez(path, x=np.zeros(1000))
    content = bytearray(path.read_bytes())
    content[300] ^= 255  # inside the array: the checksum does not match
    path.write_bytes(content)


@pytest.mark.parametrize(
    "write",
    [
        truncated,
        damaged,
        lambda p: p.write_text("no zip"),
        lambda p: p.write_bytes(b""),
        lambda p: np.save(p.with_suffix(".npy"), np.zeros(2)) or p.with_suffix(".npy").rename(p),
    ],
)
def test_refuses_files_that_are_no_archives_of_arrays(tmp_path: Path, write):
    path = tmp_path / "bad.npz"
    write(path)
    with pytest.raises(InputError) as error:
        data.load(path)
    assert error.value.status is ExitStatus.BAD_INPUT
    assert error.value.where == str(path)
    assert "numpy.savez" in error.value.hint


@pytest.mark.parametrize("spec", ["missing.npz", ".", "*.npz"])
def test_refuses_where_nothing_is(tmp_path: Path, spec: str):
    with pytest.raises(InputError):
        data.load(tmp_path / spec)
