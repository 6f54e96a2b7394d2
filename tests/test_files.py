"""Output is there as a whole or not at all: killed, out of space, not allowed, or written by two at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from sparsify import files, modelio
from sparsify.errors import UsageError

needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")

# Forks a writer for each line "path first count", which saves that many versions; prints its pid, then its status.
WRITERS = """
import os, sys
from sparsify import modelio
from tests.test_files import version
for line in sys.stdin:
    path, first, count = line.split()
    if (pid := os.fork()) == 0:
        for number in range(int(first), int(first) + int(count)):
            modelio.save(modelio.load(version(number)), path, limit=1000)
        os._exit(0)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Writers:
    """A process that has imported everything and starts one writer after another."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WRITERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def start(self, path: Path, first: int, count: int) -> int:
        """The pid of a writer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{path} {first} {count}\n")
        return self._read()

    def wait(self) -> int:
        """The exit status of the writer, negative when a signal ended it."""
        return self._read()

    def _read(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def writers() -> Iterator[list[Writers]]:
    """Three, so that they can write at once."""
    made = [Writers() for _ in range(3)]
    yield made
    for one in made:
        one.close()


def version(number: int) -> onnx.ModelProto:
    """A model whose weight, 1 MiB, is this number throughout."""
    w = onnx.numpy_helper.from_array(np.full((512, 512), number, np.float32), "w")
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["M", 512]) for n in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [w])
    return onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])


def assert_whole(path: Path) -> float:
    """The model loads, its data is all of one version, and that is the one its name says; which one."""
    model = modelio.load(path)
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None
    values = np.unique(tensor.numpy())
    assert len(values) == 1
    onnx.checker.check_model(str(path))
    return float(values[0])


@needs_fork
def test_killed_at_any_of_50_moments_a_whole_model_stands(tmp_path: Path, writers: list[Writers]) -> None:
    path = tmp_path / "model.onnx"
    writer = writers[0]
    modelio.save(modelio.load(version(0)), path, limit=1000)
    choose = random.Random(7)
    seen = set()
    for moment in range(1, 51):
        pid = writer.start(path, 1000 * moment, 999)
        time.sleep(choose.uniform(0, 0.1))
        os.kill(pid, signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
        seen.add(assert_whole(path))
    assert len(seen) > 10  # so long did they live that many of them finished something
    abandoned = [folder for folder in tmp_path.iterdir() if folder.name.startswith(".")]
    assert abandoned  # they were stopped in the midst of something, too
    for folder in abandoned:
        os.utime(folder, (0, 0))
    modelio.save(modelio.load(version(1)), path, limit=1000)
    assert len(list(tmp_path.iterdir())) == 2  # what the killed ones left is gone


def test_a_young_scratch_folder_is_left_to_its_writer(tmp_path: Path) -> None:
    young = tmp_path / ".x.json.abc.part"
    young.mkdir()
    files.write_bytes(tmp_path / "x.json", b"new")
    assert young.is_dir()


def test_a_held_scratch_folder_is_left_to_its_writer(tmp_path: Path) -> None:
    with files.replacing(tmp_path / "x.json") as held:
        os.utime(held, (0, 0))
        files.write_bytes(tmp_path / "x.json", b"other")
        (held / "x.json").write_bytes(b"mine")
    assert (tmp_path / "x.json").read_bytes() == b"mine"


@needs_fork
def test_concurrent_writers_of_one_output_do_not_mix(tmp_path: Path, writers: list[Writers]) -> None:
    path = tmp_path / "model.onnx"
    for number, writer in enumerate(writers):
        writer.start(path, 1000 * number, 25)
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert assert_whole(path) in {24, 1024, 2024}
    assert len(list(tmp_path.iterdir())) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("may not mount a file system here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_costs_nothing(small_disk: Path) -> None:
    path = small_disk / "model.onnx"
    modelio.save(modelio.load(version(5)), path, limit=1000)
    (small_disk / "other").write_bytes(bytes(2**20 + 2**19))
    before = {file.name: file.read_bytes() for file in small_disk.iterdir()}
    with pytest.raises(UsageError, match="No space left"):
        modelio.save(modelio.load(version(6)), path, limit=1000)
    assert {file.name: file.read_bytes() for file in small_disk.iterdir()} == before
    assert assert_whole(path) == 5


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="may not be written"):
        files.check_folder(tmp_path / "x.onnx", "-o x.onnx")
    with pytest.raises(UsageError, match="cannot write"):
        files.write_bytes(tmp_path / "x.onnx", b"x")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_device_or_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.onnx")
    for write in (lambda path: files.check_folder(path, "-o x.onnx"), lambda path: files.write_bytes(path, b"x")):
        with pytest.raises(UsageError, match="device or a pipe"):
            write(tmp_path / "x.onnx")
    assert (tmp_path / "x.onnx").is_fifo()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a read-only mount")
def test_a_read_only_file_system_is_refused_with_a_sentence(small_disk: Path) -> None:
    (small_disk / "x.onnx").write_bytes(b"before")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UsageError, match="may not be written"):
        files.check_folder(small_disk / "x.onnx", "-o x.onnx")
    with pytest.raises(UsageError, match="Read-only"):
        files.write_bytes(small_disk / "x.onnx", b"after")
    assert (small_disk / "x.onnx").read_bytes() == b"before"
