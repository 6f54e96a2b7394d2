"""Peak memory of `sparsify audit --layers` on a vision transformer of 24M parameters and 104 photographs.

    python -m benchmarks.audit_memory [--pictures N] [-- OPTIONS OF AUDIT]

The candidate has every weight of two dimensions on a grid of 8 bits. The pictures are squares of scikit-image's
photographs and their mirror images; the model's batch is a symbol. Resident memory of the process and its
children together is looked at every 50 ms (see `benchmarks.memory`). Exits 1 above the target of 2 GB.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks import photos
from benchmarks.memory import watch
from models.fetch import fetch

TARGET = 2e9  # bytes
BATCH = 4  # pictures a feed


def main() -> int:
    """Print peak and time; 1 above the target, else the exit status of `sparsify`."""
    own, _, rest = " ".join(sys.argv[1:]).partition("-- ")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=104)
    count = parser.parse_args(own.split()).pictures
    with tempfile.TemporaryDirectory(prefix="sparsify-benchmark-") as name:
        folder = Path(name)
        base = fetch("vit-saliency")
        candidate = rounded(base, folder / "candidate.onnx")
        write(count, folder / "data")
        command = [sys.executable, "-m", "sparsify", "audit", str(base), str(candidate), "--data", str(folder / "data")]
        report = folder / "report.json"
        found = watch([*command, "--layers", "--report", str(report), *rest.split()])
        rows = report.read_text().count('"accumulated"') if report.exists() else 0
    print(f"{count} pictures, {rows} layers, exit {found.status}; the target is {TARGET / 1e9:g} GB")
    print(found)
    return found.status or int(found.peak > TARGET)


def rounded(base: Path, place: Path) -> Path:
    """A copy of the model whose matrices lie on 255 levels each."""
    model = onnx.load(base)
    for tensor in model.graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if weight.ndim == 2 and weight.dtype == np.float32:
            step = np.abs(weight).max() / 127 or 1.0
            tensor.CopyFrom(numpy_helper.from_array((np.rint(weight / step) * step).astype(np.float32), tensor.name))
    onnx.save(model, place)
    return place


def write(count: int, folder: Path) -> None:
    """`count` pictures, `BATCH` a file."""
    folder.mkdir()
    pictures = photos.squares((*photos.CALIBRATION, *photos.JUDGED))
    pictures = np.concatenate([pictures, pictures[:, :, :, ::-1]])[:count]
    for start in range(0, len(pictures), BATCH):
        np.savez(folder / f"{start:04}.npz", input_image=pictures[start : start + BATCH])


if __name__ == "__main__":
    sys.exit(main())
