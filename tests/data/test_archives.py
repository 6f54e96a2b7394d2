"""NumPy's files, folders and globs of them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sparsify import data
from sparsify.data import TensorSpec, reading
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
    with pytest.raises(InputError, match=r"key `x` holds Python objects") as error:
        data.load(tmp_path / "p.npz")
    assert error.value.where == str(tmp_path / "p.npz")
    assert "--trust-data" in error.value.hint


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


def test_unpickles_what_is_trusted(tmp_path: Path):
    np.savez(tmp_path / "p.npz", tag=np.array(["a", "bc"], dtype=object))
    np.save(tmp_path / "q.npy", np.array(["a"], dtype=object), allow_pickle=True)
    trusting = data.Reading(trust=True)
    (found,) = data.load(tmp_path / "p.npz", reading=trusting)
    assert found["tag"].tolist() == ["a", "bc"]
    one = [TensorSpec("s", "str", ("n",))]
    assert data.load(tmp_path / "q.npy", one, trusting)[0]["s"].tolist() == ["a"]
    with pytest.raises(InputError, match="key `s` holds Python objects"):
        data.load(tmp_path / "q.npy", one)


def test_a_pickle_that_fails_is_the_file_s_fault(tmp_path: Path):
    np.savez(tmp_path / "p.npz", x=np.array([{}], dtype=object))
    content = (tmp_path / "p.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "p.npz", "w") as archive:
        head = content[content.index(b"\x93NUMPY") : content.index(b"\x80")]
        archive.writestr("x.npy", head + b"\x80\x04cnowhere\nnothing\n.")
    with pytest.raises(InputError, match="cannot be read"):
        data.load(tmp_path / "p.npz", reading=data.Reading(trust=True))


def test_an_npy_is_the_only_input(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.arange(3))
    assert data.load(tmp_path / "a.npy", [TensorSpec("x", "int64", ("n",))])[0]["x"].tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="a single array without a name, and the model takes 2"):
        data.load(tmp_path / "a.npy", [TensorSpec("x", "int64", ("n",)), TensorSpec("y", "int64", ("n",))])


def claims(path: Path, shape: str) -> None:
    """An `.npz` of some hundred bytes whose array says that it is much larger."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())


@pytest.mark.parametrize("shape", ["(10**6,)", "(1000000000000,)", "(-1,)", "(2, 3)"])
def test_an_array_is_not_given_more_room_than_its_file_has(tmp_path: Path, shape: str):
    claims(tmp_path / "x.npz", shape)
    with pytest.raises(InputError) as error:
        data.load(tmp_path / "x.npz")
    assert error.value.where in (str(tmp_path / "x.npz"), str(tmp_path / "x.npz"))


def test_data_may_take_half_of_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(1000))
    np.savez_compressed(tmp_path / "b.npz", x=np.zeros(1000))
    monkeypatch.setattr(reading, "machine", lambda: SimpleNamespace(memory=2 * 15_999))
    assert len(data.load(tmp_path / "a.npz")) == 1
    with pytest.raises(InputError, match="half of this machine's memory"):
        data.load(tmp_path)
