"""A Dask scheduler and two workers on loopback, each a process that can be killed; and what they are asked to do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SIZE = 2
# A task is given up when a second worker died of it: three deaths, as by default, would only take longer.
SETTINGS = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1", "OMP_NUM_THREADS": "1"}


class Cluster:
    """Workers have a thread each, and no nanny that would start them again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        host, port = self.address.split(":")
        self.scheduler = self._start("scheduler", "--host", host, "--port", port, "--no-dashboard")
        self.workers: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        return f"dask://{self.address}"

    def complete(self) -> None:
        """Have all workers there."""
        import distributed

        self.workers = [worker for worker in self.workers if worker.poll() is None]
        where = (f"tcp://{self.address}", "--no-nanny", "--nthreads", "1", "--no-dashboard")
        self.workers += [self._start("worker", *where) for _ in range(SIZE - len(self.workers))]
        with distributed.Client(f"tcp://{self.address}", timeout=60, set_as_default=False) as client:
            deadline = time.monotonic() + 60
            while len(client.scheduler_info()["workers"]) != SIZE:
                assert time.monotonic() < deadline, "the workers did not come"
                time.sleep(0.05)

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()

    def _start(self, what: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *options]
        with (self._folder / f"{what}.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **SETTINGS}, stdout=log, stderr=subprocess.STDOUT
            )


def noted(item: int, folder: str, asking: int) -> tuple[int, int]:
    """The item's square and the process. Half a second is time enough to be killed in by whoever reads the note."""
    assert os.getpid() != asking
    path = Path(folder) / f"{item}-{os.getpid()}"
    path.with_suffix(".part").write_text(str(os.getpid()))
    path.with_suffix(".part").rename(path)
    time.sleep(0.5)
    return item * item, os.getpid()


def deadly(item: int) -> int:
    """What no worker survives."""
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def weighted(item: int, weights: Any) -> float:
    """Work that needs much besides its item, and takes long enough for workers to come and go."""
    time.sleep(0.05)
    return float(item * weights.sum())


def wrong(item: int) -> Any:
    raise ValueError(f"{item} is wrong")


def thread_of(item: int) -> int:
    """Which thread does the work."""
    return threading.get_ident()
