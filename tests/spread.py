"""Work that other machines may do, on a small model: pruning and sensitivities, as one alone would do them."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from sparsify import modelio, parallel, sensitivity
from sparsify.engines import called_in
from sparsify.graph import linear_layers
from sparsify.passes.prune import Prune
from sparsify.patterns import Pattern
from sparsify.pruning import FEEDS
from tests import cluster as tasks
from tests.running import set_constant

INNER = 256  # columns: two slices that are solved on their own
MODEL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[B,64] x) => (float[B,64] y)
<float[1,1] w0 = {0}, float[1,1] w1 = {0}, float[1,1] w2 = {0}, float[1,1] w3 = {0}, float[1,1] b1 = {0}>
{ a = MatMul(x, w0)
  b = Relu(a)
  c = MatMul(b, w1)
  d = Add(c, b1)
  e = Sigmoid(d)
  f = Gemm<transB = 1>(e, w2)
  h = MatMul(x, w3)
  y = Add(f, h) }"""
SHAPES = {"w0": (64, INNER), "w1": (INNER, INNER), "w2": (64, INNER), "w3": (64, 64)}


def calibrated(rng: np.random.Generator) -> ir.Model:
    """The model, with feeds to learn from."""
    found = ir.from_onnx_text(MODEL)
    for name, shape in SHAPES.items():
        set_constant(found, name, rng.standard_normal(shape).astype(np.float32) / 8)
    set_constant(found, "b1", rng.standard_normal(INNER).astype(np.float32))
    found.meta[FEEDS] = [{"x": rng.standard_normal((40, 64)).astype(np.float32)} for _ in range(8)]
    return found


def pruned(model: ir.Model) -> bytes:
    copy = modelio.load(model)
    copy.meta[FEEDS] = model.meta[FEEDS]
    Prune()(copy)
    return ir.to_proto(copy).SerializeToString()


def drifts(model: ir.Model, progress=lambda *_: None) -> list[tuple[float, ...]]:
    goals = sensitivity.tried((Pattern(32, 64), 0.5))
    with parallel.one_blas_thread():
        found = sensitivity.measure(
            model, linear_layers(model), model.meta[FEEDS], goals, memory=2**24, threads=1, progress=progress
        )
    return [one.curve.drifts for one in found]


def with_the_first_killed(url: str, folder: Path) -> tuple[list[tuple[int, int]], list[int]]:
    """Squares of 0 to 3, by `noted` in `folder`, with the processes that made them; and the one that was killed."""
    killed: list[int] = []

    def kill_the_first_to_start() -> None:
        while not (notes := [n for n in folder.iterdir() if n.suffix != ".part"]):
            time.sleep(0.02)
        killed.append(int(notes[0].read_text()))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_the_first_to_start, daemon=True)
    killer.start()
    work = partial(tasks.noted, folder=str(folder), asking=os.getpid())
    with called_in(url):
        found = [*parallel.in_order(work, range(4), 4)]
    killer.join(1)
    return found, killed
