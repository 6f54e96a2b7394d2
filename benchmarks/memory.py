"""Peak memory of `sparsify optimize` on models larger than memory ought to hold.

    python -m benchmarks.memory MODEL.onnx [-- OPTIONS]        OPTIONS of sparsify optimize, such as -O3 --data FOLDER

What counts is the resident memory of the process and its children together, pages of mapped files included, looked at
every 50 ms in /proc (Linux). How much of it was no file (which the system cannot take back) is told beside it, and
what was read from and written to disks. Scratch files go where `TMPDIR` says: a disk with room for the model.
`benchmarks.large` makes a model of any size for this.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparsify import modelio

_EVERY_S = 0.05


@dataclass(frozen=True)
class Watched:
    """What a command took: its exit status, bytes and seconds; bytes read are those that were not in memory."""

    status: int
    peak: int
    anonymous: int
    read: int
    written: int
    seconds: float
    processor: float

    def __str__(self) -> str:
        return (
            f"peak {self.peak / 2**30:.2f} GiB, without mapped files {self.anonymous / 2**30:.2f} GiB\n"
            f"{self.seconds:.0f} s, {self.processor:.0f} s of processor time; from disk {self.read / 1e9:.1f} GB, "
            f"to disk {self.written / 1e9:.1f} GB, {(self.read + self.written) / 1e6 / self.seconds:.0f} MB/s"
        )


def main() -> int:
    """Print the peak; the exit status is that of `sparsify`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    given, options = arguments(parser)
    with tempfile.TemporaryDirectory(prefix="sparsify-benchmark-") as folder:
        out = Path(folder) / "out.onnx"
        found = watch([sys.executable, "-m", "sparsify", "optimize", str(given.model), "-o", str(out), *options])
        written = modelio.size(out) if out.exists() else 0
    print(f"{given.model.name}: {modelio.size(given.model) / 1e9:.1f} GB in, {written / 1e9:.1f} GB out")
    print(found)
    return found.status


def arguments(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, list[str]]:
    """Our own arguments, and those after `--`."""
    own, options = sys.argv[1:], []
    if "--" in own:
        at = own.index("--")
        own, options = own[:at], own[at + 1 :]
    return parser.parse_args(own), options


def watch(command: list[str], variables: Mapping[str, str] | None = None) -> Watched:
    """Run `command`, with these variables more, and look at it and its children until it ends."""
    began, before = time.monotonic(), os.times()
    peak = own = 0
    disk = {"read_bytes": 0, "write_bytes": 0}
    with subprocess.Popen(command, env={**os.environ, **(variables or {})}) as process:
        while process.poll() is None:
            sizes = [_resident(pid) for pid in _family(process.pid)]
            peak, own = max(peak, sum(s for s, _ in sizes)), max(own, sum(a for _, a in sizes))
            # Of children that have ended, too; the last look misses up to 50 ms.
            disk = {name: max(most, _fields(process.pid, "io").get(name, 0)) for name, most in disk.items()}
            time.sleep(_EVERY_S)
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    seconds = time.monotonic() - began
    return Watched(process.returncode, peak, own, disk["read_bytes"], disk["write_bytes"], seconds, processor)


def _family(pid: int) -> list[int]:
    """A process and all below it; those that are gone meanwhile have no children."""
    try:
        children = [int(c) for f in Path(f"/proc/{pid}/task").glob("*/children") for c in f.read_text().split()]
    except OSError:
        children = []
    return [pid, *(one for child in children for one in _family(child))]


def _resident(pid: int) -> tuple[int, int]:
    """Bytes in memory, with and without pages of files; 0 when the process is gone."""
    fields = _fields(pid, "status")
    return 1024 * fields.get("VmRSS", 0), 1024 * fields.get("RssAnon", 0)


def _fields(pid: int, file: str) -> dict[str, int]:
    """The numbers of a process that the system tells, by name; none when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines)
    return {name: int(words[0]) for name, text in pairs if (words := text.split()) and words[0].isdigit()}


if __name__ == "__main__":
    sys.exit(main())
