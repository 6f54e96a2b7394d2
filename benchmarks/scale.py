"""Networks whose dense form cannot exist: 1, 5 and 50 million hidden neurons, 20 weights a neuron.

    python -m benchmarks.scale [--neurons N]... [--shape wide|deep]... [--folder DIR]

784 inputs, 10 outputs, N hidden neurons with Relu, in one layer (wide) or in four (deep). Connections are random
(Erdos-Renyi, as those that SET starts from): a hidden neuron reads 20 neurons of the layer before on average; those of
the last hidden layer read 19 and have one weight out. Building, and loading on one and on two threads, are processes
of their own, so that memory is that of one step. What was measured is kept in FOLDER/scale.json: what is there is not
done again, and docs/scale.md shows all of it. `--step build` and `--step load` do a part, of what is not there yet.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

import sparsify
from benchmarks import scale_page
from sparsify import modelio, runtime

INPUTS, OUTPUTS, WEIGHTS, DEPTH, RUNS = 784, 10, 20, 4, 5
SIZES = (10**6, 5 * 10**6, 50 * 10**6)
SHAPES = ("wide", "deep")
FOLDER = Path(__file__).parent / "results" / "scale"
PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
_CHUNK = 2**22  # connections made at a time

Layer = tuple[scipy.sparse.csc_array, None, "str | None"]
Vector = npt.NDArray[np.float32]


def widths(neurons: int, shape: str) -> list[int]:
    """Neurons of each layer, from the inputs to the outputs."""
    return [INPUTS, *([neurons] if shape == "wide" else [neurons // DEPTH] * DEPTH), OUTPUTS]


def layers(neurons: int, shape: str, folder: Path) -> Iterator[Layer]:
    """The layers one by one; their arrays are files in `folder`, mapped, and the next layer's overwrite them."""
    rng = np.random.default_rng(0)
    sizes = widths(neurons, shape)
    for number, (k, n) in enumerate(pairwise(sizes)):
        last = number == len(sizes) - 2
        # The last hidden layer's neurons have one weight out, so that there are 20 for each neuron in all.
        fan_in = WEIGHTS - 1 if number == len(sizes) - 3 else WEIGHTS
        density = 1 / n if last else fan_in / k
        yield random_matrix(k, n, density, rng, folder), None, None if last else "Relu"


def random_matrix(k: int, n: int, density: float, rng: np.random.Generator, folder: Path) -> scipy.sparse.csc_array:
    """W [k, n] float32 in which each entry is there with probability `density`, values uniform from -0.5 to 0.5.

    In column-major order the gaps between entries are independent and geometric: W is made as a stream.
    """
    most = int(k * n * density + 8 * (k * n * density) ** 0.5) + 16  # 8 standard deviations: 1 in 10^15
    index = np.memmap(folder / "rows", np.int32, "w+", shape=(most,))
    value = np.memmap(folder / "values", np.float32, "w+", shape=(most,))
    ends = np.zeros(n + 1, np.int32)
    count, before = 0, -1
    while before < k * n:
        positions = before + np.cumsum(rng.geometric(density, _CHUNK))
        before = int(positions[-1])
        positions = positions[: np.searchsorted(positions, k * n)]
        columns = positions // k
        if columns.size:
            ends[columns[0] + 1 : columns[-1] + 2] += np.bincount(columns - columns[0]).astype(np.int32)
        part = slice(count, count + positions.size)
        index[part] = positions - columns * k
        values = rng.random(positions.size, np.float32) - np.float32(0.5)
        value[part] = np.where(values == 0, np.float32(0.25), values)  # an explicit 0 would not be stored
        count = part.stop
    np.cumsum(ends, out=ends)
    return scipy.sparse.csc_array((value[:count], index[:count], ends), shape=(k, n))


def sample() -> Vector:
    """One row of inputs."""
    return np.random.default_rng(1).standard_normal(INPUTS).astype(np.float32)


def build(neurons: int, shape: str, folder: Path) -> dict[str, Any]:
    """Make the network and save it as folder/network.onnx; SciPy's answer to `sample` goes to folder/expected.npy."""
    began, spent = _clocks(), np.zeros(2)
    value = sample()
    counts: list[int] = []

    def followed() -> Iterator[Layer]:
        nonlocal value, spent
        for matrix, bias, activation in layers(neurons, shape, folder):
            start = _clocks()
            value = matrix.T @ value
            value = np.maximum(value, 0) if activation else value
            counts.append(matrix.nnz)
            spent += _clocks() - start
            yield matrix, bias, activation

    model = sparsify.from_scipy(followed())
    path = folder / "network.onnx"
    modelio.save(model, path)
    took = _clocks() - began - spent
    np.save(folder / "expected.npy", value)
    sizes = widths(neurons, shape)
    packed = sum(
        count * (6 if k <= 65536 else 8) + 2 * n  # its value and a row of 2 or 4 bytes; where a column ends
        for k, n, count in zip(sizes, sizes[1:], counts, strict=False)
    )
    for scratch in ("rows", "values"):
        (folder / scratch).unlink()
    return {
        "weights": sum(counts),
        "build_s": float(took[0]),
        "build_cpu_s": float(took[1]),
        "build_peak_bytes": _status("VmHWM"),
        "file_bytes": modelio.size(path),
        "packed_bytes": packed,
        "entropy_bytes": 4 + sum(map(_position_bits, sizes, sizes[1:], counts)) / 8 / sum(counts),
    }


def _position_bits(k: int, n: int, count: int) -> float:
    """Bits that the positions of `count` random entries of [k, n] hold: K N H(count / K N)."""
    p = count / (k * n)
    return float(-k * n * (p * np.log2(p) + (1 - p) * np.log1p(-p) / np.log(2)))


def load(folder: Path, threads: int) -> dict[str, Any]:
    """Open the file in this process and run one row; with one thread the file comes from the disk, not from memory."""
    if threads == 1:
        _drop_from_memory(folder)
    runtime.session(sparsify.from_scipy([(scipy.sparse.eye_array(2), None, None)]))  # what any first session takes
    before = _status("VmRSS")
    began = _clocks()
    session = runtime.session(folder / "network.onnx", threads=threads)
    load = _clocks() - began
    x, took = sample()[None], []
    for _ in range(RUNS + 1):
        start = _clocks()
        (y,) = session.run(None, {"x": x})
        took.append(_clocks() - start)
    row = np.median(took[1:], axis=0)
    expected = np.load(folder / "expected.npy")
    return {
        f"load_s_{threads}": float(load[0]),
        f"load_cpu_s_{threads}": float(load[1]),
        f"row_s_{threads}": float(row[0]),
        f"row_cpu_s_{threads}": float(row[1]),
        f"rss_bytes_{threads}": _status("VmRSS") - before,
        f"peak_bytes_{threads}": _status("VmHWM") - before,
        "difference": float(np.abs(y[0] - expected).max() / np.abs(expected).max()),
    }


def _clocks() -> npt.NDArray[np.float64]:
    """Seconds on the wall, and of processor time."""
    return np.array([time.perf_counter(), time.process_time()])


def _drop_from_memory(folder: Path) -> None:
    """Ask the system to forget its copies of the model's files."""
    for file in folder.glob("network.onnx*"):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _status(field: str) -> int:
    """Bytes of /proc/self/status: resident memory, mapped files included, now (VmRSS) and at most so far (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def measure(neurons: int, shape: str, folder: Path, steps: tuple[str, ...], row: dict[str, Any]) -> dict[str, Any]:
    """`row` with what it lacks of `steps`."""
    place = folder / f"{shape}-{neurons}"
    place.mkdir(parents=True, exist_ok=True)
    if "build" in steps and "build_s" not in row:
        row |= {"shape": shape, "neurons": neurons, **_apart("build", neurons, shape, str(place))}
    if "load" in steps and "load_s_2" not in row:
        for threads in (1, 2):
            row |= _apart("load", str(place), threads)
    if "load_s_2" in row:
        shutil.rmtree(place)
    return row


def _apart(function: str, *arguments: str | int) -> dict[str, Any]:
    """The result of build or load in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--apart", json.dumps([function, *arguments])]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found


def main() -> int:
    """Measure each size and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, action="append")
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="a disk with 16 GB of room")
    parser.add_argument("--step", choices=("build", "load"))
    parser.add_argument("--apart", help=argparse.SUPPRESS)  # what a process of its own does
    options = parser.parse_args()
    if options.apart:
        function, *arguments = json.loads(options.apart)
        if function == "build":
            print(json.dumps(build(arguments[0], arguments[1], Path(arguments[2]))))
        else:
            print(json.dumps(load(Path(arguments[0]), arguments[1])))
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    kept = options.folder / "scale.json"
    rows = json.loads(kept.read_text()) if kept.exists() else {}
    steps = (options.step,) if options.step else ("build", "load")
    for shape in options.shape or SHAPES:
        for neurons in options.neurons or SIZES:
            key = f"{shape} {neurons}"
            rows[key] = measure(neurons, shape, options.folder, steps, rows.get(key, {}))
            kept.write_text(json.dumps(rows, indent=1))
    if options.step == "build":
        return 0
    text = scale_page.page([row for row in rows.values() if "load_s_2" in row])
    print(text)
    if options.folder == FOLDER:
        PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
