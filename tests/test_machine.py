"""Facts of the machine: true here, and None where a system does not tell."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparsify import machine as facts


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    facts.machine.cache_clear()
    yield
    facts.machine.cache_clear()  # tests that follow are not on a made-up machine


def test_is_frozen_and_fits_json() -> None:
    here = facts.machine()
    with pytest.raises(dataclasses.FrozenInstanceError):
        here.cpu = "other"  # type: ignore[misc]
    assert json.loads(json.dumps(here.to_dict())) == here.to_dict()


def test_cores_are_those_that_this_process_may_use() -> None:
    here = facts.machine()
    if hasattr(os, "sched_getaffinity"):
        assert here.logical_cores == len(os.sched_getaffinity(0))
    assert 1 <= facts.threads() <= here.logical_cores


def test_knows_nothing_of_a_system_that_tells_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(facts, "_CPUINFO", tmp_path / "absent")
    monkeypatch.setattr(facts, "_CPU_FOLDER", tmp_path / "absent")
    monkeypatch.setattr(facts.platform, "processor", lambda: "")
    monkeypatch.setattr(facts.platform, "system", lambda: "Plan 9")
    here = facts.machine()
    assert (here.cpu, here.physical_cores, here.isa_flags, here.caches) == (None, None, (), ())
    assert facts.threads() == here.logical_cores


def test_reads_linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("model name\t: Some CPU\nflags\t\t: fpu avx2 avx512f avx512_vnni sse\n")
    for core, siblings in ((0, "0,2"), (2, "0,2"), (1, "1,3")):
        folder = tmp_path / f"cpu{core}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{siblings}\n")
    for index, (kind, level, size) in enumerate([("Data", 1, "48K"), ("Instruction", 1, "32K"), ("Unified", 3, "32M")]):
        folder = tmp_path / "cpu0" / "cache" / f"index{index}"
        folder.mkdir(parents=True)
        for name, value in (("type", kind), ("level", level), ("size", size)):
            (folder / name).write_text(f"{value}\n")
    monkeypatch.setattr(facts, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(facts, "_CPU_FOLDER", tmp_path)
    monkeypatch.setattr(facts, "_usable_cores", lambda: frozenset({0, 1, 2}))
    here = facts.machine()
    assert here.cpu == "Some CPU"
    assert (here.logical_cores, here.physical_cores) == (3, 2)
    assert here.isa_flags == ("avx2", "avx512_vnni", "avx512f")
    assert dict(here.caches) == {"L1d": 48 * 1024, "L3": 32 * 2**20}
