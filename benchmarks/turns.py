"""A peer in a process and an environment of its own, which runs once when it is told to: so that all can take turns."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def milliseconds(run: Callable[[], object]) -> float:
    """How long `run` takes, in this process."""
    began = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - began)


class Turns:
    """`script`, run by `python` with `arguments`: for every line that it reads it runs once and prints a line of JSON.

    That holds `ms`, and `difference` if it knows one: of its first result from what was expected, over the largest
    number of that.

    It ends when its input closes: with this object, or with this process.
    """

    def __init__(self, python: Path, script: str, *arguments: Path | str) -> None:
        path = Path(__file__).with_name(script)
        command = [str(part) for part in (python, path, *arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.difference: float | None = None

    def time(self) -> float:
        """Run once: how many milliseconds it took.

        Raises:
            RuntimeError: the peer has ended; what it had to say of that it said on the standard error.
        """
        assert self._process.stdin is not None  # pipes
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print("run", file=self._process.stdin, flush=True)
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"a peer ended with {self._process.wait()}")
        said = json.loads(line)
        self.difference = said.get("difference")
        return float(said["ms"])
