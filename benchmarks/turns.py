"""Contenders take turns; a peer does so from a process and an environment of its own.

In a turn a contender runs IN_A_ROW times. Its first run finds the caches full of what the others used, weights and
results of dozens of layers, and takes its own from memory: it is counted apart. The rest is how a layer runs whose
weights stay in the caches.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

IN_A_ROW = 5
_LEAST_ROUNDS = 3


@dataclass
class Times:
    """Milliseconds of first runs of a turn, and of the others."""

    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)


def take_turns(timers: Mapping[str, Callable[[], float]], rounds: int, limit_s: float = 60.0) -> dict[str, Times]:
    """What every timer, which runs its contender once, says: in `rounds` rounds, fewer when `limit_s` is over."""
    found = {name: Times() for name in timers}
    for timer in timers.values():
        timer()
    began = time.perf_counter()
    for done in range(rounds):
        if done >= _LEAST_ROUNDS and time.perf_counter() - began > limit_s:
            break
        for name, timer in timers.items():
            found[name].cold.append(timer())
            found[name].warm += [timer() for _ in range(IN_A_ROW - 1)]
    return found


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
