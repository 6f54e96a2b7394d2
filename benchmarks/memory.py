"""Peak memory of `sparsify optimize` on models larger than memory ought to hold.

    python -m benchmarks.memory MODEL.onnx [--data DATA] [-- OPTIONS]     a model of yours
    python -m benchmarks.memory --synthetic 20                            a made one of 20 GB

What counts is the resident memory of the process and its children together, pages of mapped files included, looked at
every 50 ms in /proc (Linux). How much of it was no file (which the system cannot take back) is told beside it. Scratch
files and the synthetic model go where `TMPDIR` says: a disk with twice the room.

The synthetic model is a chain of MatMuls [2048, 8192] and [8192, 2048], each weight of its own. The first sixteenth of
its rows are random numbers, the rest is a hole in a sparse file: 94 % zeros, a sixteenth of the disk.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

_EVERY_S = 0.05
_WIDE, _NARROW = 8192, 2048
_FILLED = 16  # the first of so many parts of a weight


def main() -> int:
    """Print the peak; the exit status is that of `sparsify`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--synthetic", type=float, metavar="GB", help="instead of a model")
    parser.add_argument("options", nargs="*", help="of sparsify optimize, after --")
    own, options = (sys.argv[1:], []) if "--" not in sys.argv else _split(sys.argv[1:])
    given = parser.parse_args(own)
    with tempfile.TemporaryDirectory(prefix="sparsify-benchmark-") as folder:
        model = given.model or synthetic(Path(folder), given.synthetic or 20.0)
        size = sum(file.stat().st_size for file in (model, *model.parent.glob(f"{model.name}*data")))
        command = [sys.executable, "-m", "sparsify", "optimize", str(model), "-o", str(Path(folder) / "out.onnx")]
        status, peak, anonymous, seconds = watch([*command, *options])
        written = sum(file.stat().st_size for file in Path(folder).glob("out.onnx*"))
    print(f"{model.name}: {size / 1e9:.1f} GB in, {written / 1e9:.1f} GB out")
    print(f"peak {peak / 2**30:.2f} GiB, without mapped files {anonymous / 2**30:.2f} GiB")
    print(f"{seconds:.0f} s, {size / 1e9 / seconds:.3f} GB/s")
    return status


def watch(command: list[str]) -> tuple[int, int, int, float]:
    """Exit status; peak resident bytes of the command and its children together, all and without files; seconds."""
    began = time.monotonic()
    peak = own = 0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            sizes = [_resident(pid) for pid in _family(process.pid)]
            peak, own = max(peak, sum(s for s, _ in sizes)), max(own, sum(a for _, a in sizes))
            time.sleep(_EVERY_S)
    return process.returncode, peak, own, time.monotonic() - began


def synthetic(folder: Path, gigabytes: float) -> Path:
    """A chain of MatMuls whose weights come to `gigabytes`, with external data."""
    rng = np.random.default_rng(0)
    layer_bytes = 4 * _WIDE * _NARROW
    shapes = [(_NARROW, _WIDE), (_WIDE, _NARROW)] * max(round(gigabytes * 1e9 / layer_bytes / 2), 1)
    path = folder / "synthetic.onnx"
    weights, nodes = [], []
    data = path.with_name("synthetic.onnx.data")
    with data.open("wb") as file:
        for number, (k, n) in enumerate(shapes):
            file.seek(number * layer_bytes)
            file.write(rng.standard_normal((k // _FILLED, n), np.float32).tobytes())
            weight = TensorProto(name=f"w{number}", data_type=TensorProto.FLOAT, dims=(k, n))
            weight.data_location = TensorProto.EXTERNAL
            entries = {
                "location": data.name,
                "offset": number * layer_bytes,
                "length": layer_bytes,
            }
            for key, value in entries.items():
                weight.external_data.add(key=key, value=str(value))
            weights.append(weight)
            nodes.append(
                helper.make_node("MatMul", [f"x{number}", f"w{number}"], [f"x{number + 1}"], name=f"m{number}")
            )
        file.truncate(len(shapes) * layer_bytes)
    ends = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, [8, _NARROW]) for i in (0, len(shapes))]
    graph = helper.make_graph(nodes, "synthetic", ends[:1], ends[1:], weights)
    proto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save_model(proto, path)
    return path


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _family(pid: int) -> list[int]:
    """A process and all below it; those that are gone meanwhile have no children."""
    try:
        children = [int(c) for f in Path(f"/proc/{pid}/task").glob("*/children") for c in f.read_text().split()]
    except OSError:
        children = []
    return [pid, *(one for child in children for one in _family(child))]


def _resident(pid: int) -> tuple[int, int]:
    """Bytes in memory, with and without pages of files; 0 when the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    fields = dict(line.split(":", 1) for line in lines)
    whole, own = (1024 * int(fields.get(name, "0 kB").split()[0]) for name in ("VmRSS", "RssAnon"))
    return whole, own


if __name__ == "__main__":
    sys.exit(main())
