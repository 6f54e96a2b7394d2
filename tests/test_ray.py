"""Work on a real Ray cluster of one machine, which gives what this process alone would give."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from sparsify import parallel
from sparsify.engines import called_in
from sparsify.runtime import batches
from tests import cluster as tasks
from tests.cluster import ROOT
from tests.spread import calibrated, drifts, pruned, with_the_first_killed

pytest.importorskip("ray")
pytestmark = pytest.mark.slow  # a cluster takes half a minute to come up
PATIENCE = 120  # s for it to come up


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of a cluster with two workers."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        gcs, port = one.getsockname()[1], other.getsockname()[1]
    options = ["--num-cpus=2", f"--port={gcs}", f"--ray-client-server-port={port}", "--object-store-memory=200000000"]
    quiet = ["--include-dashboard=false", "--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0"]
    # Sockets lie in the folder: their paths may have 107 characters, those of pytest's folders may be longer.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--temp-dir={folder}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        log = Path(folder, "head.log")
        with log.open("wb") as out:
            head = subprocess.Popen([*command, *options, *quiet], env=environment, stdout=out, stderr=out)
        try:
            deadline = time.monotonic() + PATIENCE
            while head.poll() is None and not _listens(port):
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            assert head.poll() is None, log.read_text()
            yield f"ray://127.0.0.1:{port}"
        finally:
            head.terminate()  # with `--block` it ends what it started
            head.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def model(rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ir.Model:
    monkeypatch.setenv("SPARSIFY_CACHE", str(tmp_path))
    monkeypatch.setattr(parallel, "pays", lambda *_: True)
    monkeypatch.setattr(parallel, "_LARGE", 0)  # all functions go apart from their tasks
    monkeypatch.setattr(batches, "BATCH", 2)
    return calibrated(rng)


def test_pruning_and_sensitivities_are_the_same(model: ir.Model, url: str) -> None:
    alone = pruned(model), drifts(model)
    with called_in(url):
        assert not parallel.here()
        assert (pruned(model), drifts(model)) == alone


def test_what_a_killed_worker_had_begun_is_done_again(url: str, tmp_path: Path) -> None:
    found, killed = with_the_first_killed(url, tmp_path)
    assert [square for square, _ in found] == [0, 1, 4, 9]
    assert killed
    assert killed[0] not in {pid for _, pid in found}


def test_what_a_task_raises_is_raised(url: str) -> None:
    with called_in(url), pytest.raises(ValueError, match="is wrong"):
        [*parallel.in_order(tasks.wrong, range(4))]
