"""A model of 20 GB through `sparsify optimize`: peak memory, time, disk, and whether what comes out is a model.

    python -m benchmarks.large [--gigabytes 20] [--folder FOLDER] [-- OPTIONS]

The model has blocks of a decoder of 7 billion parameters (LLaMA-7B: width 4096, 11008 inside), as many as come to the
size asked for, each with weights of its own: LayerNorm, attention of one head, gated SiLU. Every weight is written in
full, random numbers of variance 1 / K, so that activations stay finite. FOLDER needs room for the model, its result and
scratch files, in all 1.6 times the model; all of it is removed at the end.

What was written is taken out of the page cache before the clock starts. Then the result is held against the checker,
and every tensor of it against its data file. What the disk alone takes for as many bytes is told beside it. Exits 1
where something of this fails or the peak is over `LIMIT`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.memory import arguments, watch
from sparsify import external, limits

WIDTH, INSIDE = 4096, 11008
_CHUNK = 2**24  # bytes
LIMIT = 1.5 * 2**30  # bytes resident: what is promised at -O2 for a model of any size
_WEIGHTS = {
    "q": (WIDTH, WIDTH),
    "k": (WIDTH, WIDTH),
    "v": (WIDTH, WIDTH),
    "o": (WIDTH, WIDTH),
    "gate": (WIDTH, INSIDE),
    "up": (WIDTH, INSIDE),
    "down": (INSIDE, WIDTH),
}
_BLOCK = """
    n{i} = LayerNormalization(x{i}, one)
    q{i} = MatMul(n{i}, w{i}_q)
    k{i} = MatMul(n{i}, w{i}_k)
    v{i} = MatMul(n{i}, w{i}_v)
    t{i} = Transpose(k{i})
    s{i} = MatMul(q{i}, t{i})
    r{i} = Mul(s{i}, root)
    p{i} = Softmax(r{i})
    a{i} = MatMul(p{i}, v{i})
    o{i} = MatMul(a{i}, w{i}_o)
    m{i} = Add(x{i}, o{i})
    l{i} = LayerNormalization(m{i}, one)
    g{i} = MatMul(l{i}, w{i}_gate)
    u{i} = MatMul(l{i}, w{i}_up)
    e{i} = Sigmoid(g{i})
    f{i} = Mul(g{i}, e{i})
    h{i} = Mul(f{i}, u{i})
    d{i} = MatMul(h{i}, w{i}_down)
    x{next} = Add(m{i}, d{i})
"""


def main() -> int:
    """Make, optimise, check, remove; print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on a disk")
    given, options = arguments(parser)
    blocks = max(round(given.gigabytes * 1e9 / sum(4 * k * n for k, n in _WEIGHTS.values())), 1)
    with tempfile.TemporaryDirectory(prefix="sparsify-large-", dir=given.folder) as name:
        folder = Path(name)
        began = time.monotonic()
        model = build(folder, blocks)
        size = _size(folder)
        print(f"{blocks} blocks, {size / 1e9:.1f} GB, made in {time.monotonic() - began:.0f} s", flush=True)
        reading = _read_all(folder / "large.data")
        out = folder / "out" / "out.onnx"
        out.parent.mkdir()
        command = [sys.executable, "-m", "sparsify", "optimize", str(model), "-O2", "-o", str(out), *options]
        found = watch(command, {"TMPDIR": str(folder)})
        made = _size(out.parent)
        print(f"{size / 1e9:.1f} GB in, {made / 1e9:.1f} GB out")
        print(found)
        if found.status:
            return found.status
        wrong = faults(out, layers=blocks * len(_WEIGHTS))
        writing = _write(folder / "written", made)
        print(f"the disk alone: {reading:.0f} s to read what went in, {writing:.0f} s to write what came out")
    for fault in wrong:
        print(f"error: {fault}", file=sys.stderr)
    if found.peak > LIMIT:
        print(f"error: the peak is over {LIMIT / 2**30:.2f} GiB", file=sys.stderr)
    return 1 if wrong or found.peak > LIMIT else 0


def build(folder: Path, blocks: int, seed: int = 0) -> Path:
    """Write the model and its data into `folder`, one weight at a time."""
    rng = np.random.default_rng(seed)
    path = folder / "large.onnx"
    text = "".join(_BLOCK.format(i=i, next=i + 1) for i in range(blocks))
    graph = onnx.parser.parse_graph(f"large (float[M, {WIDTH}] x0) => (float[M, {WIDTH}] x{blocks}) {{{text}}}")
    graph.initializer.append(onnx.numpy_helper.from_array(np.ones(WIDTH, np.float32), "one"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(WIDTH**-0.5, np.float32), "root"))
    with path.with_name("large.data").open("wb") as file:
        for number in range(blocks):
            for name, (k, n) in _WEIGHTS.items():
                weight = TensorProto(name=f"w{number}_{name}", data_type=TensorProto.FLOAT, dims=(k, n))
                weight.data_location = TensorProto.EXTERNAL
                for key, entry in (("location", "large.data"), ("offset", file.tell()), ("length", 4 * k * n)):
                    weight.external_data.add(key=key, value=str(entry))
                graph.initializer.append(weight)
                (rng.standard_normal((k, n), np.float32) * np.float32(k**-0.5)).tofile(file)
        file.flush()
        os.fsync(file.fileno())
    _forget(path.with_name("large.data"))
    onnx.save_model(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def faults(path: Path, layers: int) -> list[str]:
    """What is wrong with the result: the checker's word, layers that are lost; raises for tensors that are no more."""
    found = []
    try:
        onnx.checker.check_model(path, full_check=False)
    except onnx.checker.ValidationError as error:
        found.append(str(error).splitlines()[0])
    proto = onnx.load(path, load_external_data=False)
    for tensor in limits.external_tensors(proto):
        external.check(tensor, str(path), path.parent)  # offset, length and shape
    weights = {tensor.name for tensor in proto.graph.initializer}
    sparse = sum(node.domain == "ai.sparsify" for node in proto.graph.node)
    dense = sum(node.op_type == "MatMul" and node.input[1] in weights for node in proto.graph.node)
    print(f"{sparse} of {layers} layers were rewritten")  # which of them gain is measured, and differs
    if sparse + dense != layers:
        found.append(f"{sparse} layers were rewritten, {dense} were not, and there were {layers}")
    return found


def _forget(file: Path) -> None:
    """The next reader is to find `file` on the disk."""
    with file.open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read_all(file: Path) -> float:
    """Seconds that the disk takes to read `file`."""
    began = time.monotonic()
    with file.open("rb", buffering=0) as stream:
        while stream.read(_CHUNK):
            pass
    took = time.monotonic() - began
    _forget(file)
    return took


def _write(file: Path, size: int) -> float:
    """Seconds that it takes until `size` bytes are on the disk."""
    chunk = os.urandom(_CHUNK)
    began = time.monotonic()
    with file.open("wb", buffering=0) as stream:
        for _ in range(-(-size // _CHUNK)):
            stream.write(chunk)
        os.fsync(stream.fileno())
    return time.monotonic() - began


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


if __name__ == "__main__":
    sys.exit(main())
