"""A run allocates nothing, but for what a thread keeps: its scratch arena and shapes grow when the first runs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sparsify.kernels import isa
from sparsify.ops import OPERATORS

HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the counter stands before glibc's functions"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"),
    pytest.mark.skipif(isa() in (None, "scalar"), reason="sessions run no kernels here"),
]


def test_a_run_allocates_nothing(tmp_path: Path) -> None:
    counter = tmp_path / "count_allocations.so"
    compile_ = ["cc", "-O1", "-shared", "-fPIC", str(HERE / "count_allocations.c"), "-o", str(counter)]
    subprocess.run(compile_, check=True)
    environment = {**os.environ, "LD_PRELOAD": str(counter)}
    command = [sys.executable, "-m", "tests.kernels.count_in_session"]
    done = subprocess.run(command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {operator for operator, *_ in lines} == {name for name in OPERATORS if name.endswith("Gelu")}
    first = [int(line[2]) for line in lines]
    assert sum(first) > 0, "the counter counts"
    assert {line[0]: line[3:] for line in lines if line[3:] != ["0", "0"]} == {}
