"""Candidates that accuracy calls free of charge, and what the audit's other figures say of them.

    python -m benchmarks.free [--only NAME] [--write]

Each is audited against labels (`sparsify audit --labels`). Accuracy calls a candidate free where McNemar's test does
not tell the two models apart (p > 0.05). Prints a table; with --write also docs/free.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import sparsify
from benchmarks import newsgroups
from benchmarks.magnitude import pruned
from models import digits
from models.bert import minilm_l6
from models.subjects import dynamic_int8
from models.text import Feed
from sparsify import report, runtime
from sparsify.audit import DriftReport, Estimate
from sparsify.audit.truth import Truth
from sparsify.cli import talk
from sparsify.machine import machine

PAGE = Path(__file__).parent.parent / "docs" / "free.md"
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Case:
    """A candidate and the data that it is judged on.

    Attributes:
        name, about: for people.
        make: (base, candidate, feeds, labels), files in a folder.
    """

    name: str
    about: str
    make: Callable[[Path], tuple[Path, Path, list[Feed], npt.NDArray[np.int64]]]


def main() -> int:
    """Audit each, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[case.name for case in CASES], help="one of them")
    parser.add_argument("--write", action="store_true", help="docs/free.md")
    options = parser.parse_args()
    rows = []
    for case in CASES:
        if options.only not in (None, case.name):
            continue
        with tempfile.TemporaryDirectory(prefix="sparsify-benchmark-") as folder:
            base, candidate, feeds, labels = case.make(Path(folder))
            rows.append((case, sparsify.audit(base, candidate, feeds, labels=labels, kinds={"logits": "logits"})))
    talk.show_table(report.Table("Free of charge?", COLUMNS, tuple(tuple(_cells(*row, _value)) for row in rows)))
    if options.write:
        PAGE.write_text(_page(rows), encoding="utf-8")
    return 0


COLUMNS = ("candidate", ">samples", ">accuracy", ">p", ">flips", ">KL, nats", ">cosine", ">neighbours kept")
Format = Callable[[Estimate], str]


def _cells(case: Case, found: DriftReport, share: Format) -> Iterator[str]:
    truth = next(t for t in found.truths if t.figure == "accuracy")
    logits = found.outputs["logits"]
    embedding = found.outputs.get(newsgroups.OUTPUT)
    yield case.name
    yield str(truth.samples)
    yield f"{truth.base.value:.3f} to {truth.candidate.value:.3f}"
    yield f"{truth.p_value:.2f}"
    yield share(logits.metrics["flips"])
    yield f"{logits.metrics['kl_divergence'].value:.3g}"
    yield f"{(embedding or logits).metrics['cosine'].value:.4f}"
    yield share(embedding.metrics["neighbour_agreement"]) if embedding else ""


def _value(figure: Estimate) -> str:
    return f"{100 * figure.value:.1f} %"


def _interval(figure: Estimate) -> str:
    return f"{_value(figure)} ({100 * figure.low:.1f} to {100 * figure.high:.1f})"


def _page(rows: list[tuple[Case, DriftReport]]) -> str:
    lines = [_HEAD, f"| {' | '.join(c.lstrip('>') for c in COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    lines += [f"| {' | '.join(_cells(*row, _interval))} |" for row in rows]
    lines += ["", *(f"* **{case.name}**: {case.about} {_said(found.truths)}" for case, found in rows)]
    lines += [
        f"* Measured with onnxruntime {onnxruntime.__version__} on {machine().cpu or 'an unknown CPU'}, one thread.",
        _TAIL,
    ]
    return "\n".join(lines)


def _said(truths: tuple[Truth, ...]) -> str:
    truth = next(t for t in truths if t.figure == "accuracy")
    free = "tells no difference" if truth.p_value > SIGNIFICANT else "tells the two apart"
    drop = truth.drop
    return (
        f"Accuracy drops by {drop.value:.3f} (95 % interval {drop.low:.3f} to {drop.high:.3f}); McNemar's test {free}, "
        f"p = {truth.p_value:.2f}."
    )


def _digits(share: float) -> Callable[[Path], tuple[Path, Path, list[Feed], npt.NDArray[np.int64]]]:
    def make(folder: Path) -> tuple[Path, Path, list[Feed], npt.NDArray[np.int64]]:
        with np.load(digits.DATA) as data:
            feeds: list[Feed] = [{"pixels": data["pixels"].astype(np.float32)}]
        return digits.MODEL, pruned(digits.MODEL, share, folder / "pruned.onnx"), feeds, np.load(digits.LABELS)

    return make


def _posts(
    change: Callable[[Path, Path], Path],
) -> Callable[[Path], tuple[Path, Path, list[Feed], npt.NDArray[np.int64]]]:
    """MiniLM-L6 with a nearest-centroid head; `change` makes the candidate of a model without it."""

    def make(folder: Path) -> tuple[Path, Path, list[Feed], npt.NDArray[np.int64]]:
        model = minilm_l6()
        texts = newsgroups.corpus()
        vectors = newsgroups.embed(runtime.session(model, threads=1), texts.centroid)
        centroids = vectors.reshape(texts.groups, newsgroups.CENTROID, -1).mean(axis=1)
        centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
        base = headed(model, centroids, folder / "base.onnx")
        candidate = headed(change(model, folder / "changed.onnx"), centroids, folder / "candidate.onnx")
        return base, candidate, newsgroups.judged(), texts.labels[newsgroups.judged_order()]

    return make


def headed(model: Path, centroids: npt.NDArray[np.float32], path: Path) -> Path:
    """`model` with a second output, `logits` [batch, groups]: cosines to the centroids, over the temperature 0.05."""
    proto = onnx.load(model)
    weight = np.ascontiguousarray(centroids.T / 0.05).astype(np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(weight, "head.centroids"))
    proto.graph.node.append(helper.make_node("MatMul", [newsgroups.OUTPUT, "head.centroids"], ["logits"], name="head"))
    proto.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(centroids)]))
    onnx.save(proto, path)
    return path


CASES = (
    Case(
        "digits, 60 % pruned",
        "the perceptron `models/digits.onnx`, 60 % of each weight set to zero by magnitude, 597 held-out images.",
        _digits(0.6),
    ),
    Case(
        "MiniLM-L6, dynamic int8",
        "all-MiniLM-L6-v2 as onnxruntime's `quantize_dynamic` leaves it at its default settings; 600 posts of 20 "
        "Newsgroups put to the nearest of twenty centroids (those of the fp32 model).",
        _posts(lambda model, path: dynamic_int8(model, path)),
    ),
    Case(
        "MiniLM-L6, 30 % pruned",
        "the same with three tenths of each weight set to zero by magnitude.",
        _posts(lambda model, path: pruned(model, 0.3, path)),
    ),
)

_HEAD = """# What accuracy calls free

Three candidates against labels. Accuracy hardly moves: answers that became wrong are offset by others that became
right by chance. Figures that compare a candidate with its base do move. `python -m benchmarks.free --write` measures
and writes this page.

*flips*: samples that are put into another class. *KL*: divergence of the predicted distributions, base to candidate.
*neighbours kept*: of the ten nearest posts of each post, those that stay among them. In brackets the 95 % interval.
"""
_TAIL = """
A gate on flips or on neighbours needs no labels, and on these samples it tells what accuracy does not:

```sh
sparsify audit base.onnx candidate.onnx --data posts/ --budget "flips@logits<=0.02" --budget "neighbour_agreement>=0.9"
```
"""

if __name__ == "__main__":
    sys.exit(main())
