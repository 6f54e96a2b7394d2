"""onnxsim 0.8.1's pruning in an environment of its own: it is compared with, never imported.

It prunes without a pattern that a kernel could use and leaves fp32: its rows say what accuracy others reach, not what
speed. Wheel and environment are made once, in benchmarks/results.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PIN = ("onnxsim==0.8.1", "onnxruntime>=1.20")
ROWS = {
    f"onnxsim {method} {zeros:.0%}": (method, zeros)
    for zeros in (0.5, 0.75)
    for method in ("magnitude", "wanda", "sparsegpt")
}


def prune(
    model: Path, feeds: list[dict[str, npt.NDArray[Any]]], how: tuple[str, float], folder: Path
) -> tuple[Path, dict[str, Any]]:
    """The pruned file, and seconds and peak bytes of the process that made it."""
    python = environment(folder / "onnxsim", PIN)
    data, out = folder / "peer-feeds.npz", folder / "peer.onnx"
    np.savez(data, **{f"{i}/{name}": a for i, feed in enumerate(feeds) for name, a in feed.items()})  # type: ignore[arg-type]
    script = Path(__file__).with_name("peer_run.py")
    command = [python, script, model, out, how[0], str(how[1]), data]
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True, check=True)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return out, facts


def environment(folder: Path, packages: tuple[str, ...]) -> Path:
    """The Python of an environment with `packages`, made if this is the first time."""
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    return python
