"""Feeds from a function that somebody names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsify import data
from sparsify.data import reading
from sparsify.errors import InputError, SparsifyError, UsageError

MODULE = """
import itertools
import numpy as np

def feeds():
    yield {"x": [1.0, 2.0]}
    yield {"x": np.zeros(2)}

def endless():
    return ({"x": np.zeros(1000)} for _ in itertools.count())

def nothing(): return []
def fails(): yield {"x": [1]}; raise RuntimeError("disk is full")
def wrong(): yield [1, 2]
def number(): return 3
def one_feed(): return {"x": [1]}
constant = 3
"""


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module that nobody else has, in a folder that is looked at."""
    name = f"feeds_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize("prefix", ["", "python:"])
def test_takes_what_the_function_yields(name: str, prefix: str):
    found = data.load(f"{prefix}{name}:feeds")
    assert [feed["x"].tolist() for feed in found] == [[1, 2], [0, 0]]
    assert found[1].source == f"{name}:feeds, feed 1"


def test_an_endless_one_is_stopped(name: str, monkeypatch: pytest.MonkeyPatch):
    assert len(data.load(f"{name}:endless,limit=5")) == 5
    monkeypatch.setattr(reading.Meter.__init__, "__defaults__", (100_000,))
    with pytest.raises(InputError, match="half of this machine"):
        data.load(f"{name}:endless")


@pytest.mark.parametrize(
    ("function", "kind", "words"),
    [
        ("nothing", InputError, "it gives no feed"),
        ("fails", InputError, "it fails: RuntimeError: disk is full"),
        ("wrong", InputError, "item 0 is no mapping but a `list`"),
        ("number", InputError, "it gives a `int`, not feeds"),
        ("one_feed", InputError, "it gives a `dict`, not feeds"),
        ("constant", UsageError, "has no function `constant`"),
        ("absent", UsageError, "has no function `absent`"),
    ],
)
def test_what_gives_no_feeds_is_refused(name: str, function: str, kind: type[SparsifyError], words: str):
    with pytest.raises(kind, match=words) as error:
        data.load(f"{name}:{function}")
    assert error.value.hint


def test_a_module_that_is_not_there_is_told_from_one_that_lacks_something(name: str, tmp_path: Path):
    with pytest.raises(UsageError, match="neither a file `absent:f` nor a module `absent`"):
        data.load("absent:f")
    (tmp_path / f"{name}_b.py").write_text("import surely_not_installed")
    with pytest.raises(InputError, match="No module named 'surely_not_installed'"):
        data.load(f"{name}_b:f")


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "a.npz", x=np.zeros(2))
    (tmp_path / "a.npz").rename(tmp_path / "os:getcwd")
    assert data.load("os:getcwd")[0].keys() == {"x"}
    with pytest.raises(InputError, match=r"it gives a `str`|is no mapping"):
        data.load("python:os:getcwd")
