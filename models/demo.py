"""The demo: make a real model faster, measure what that did to it, and run the file where Sparsify is not.

    python -m models.demo [--offline] [--to FOLDER]

Writes the model at -O2 and -O3, and a report of each, into `demo/`. Exits 1 when the reloaded file gives other answers.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import sparsify
from models.fetch import UnavailableError
from models.subjects import Subject, digits, dynamic_int8, feeds_of, minilm
from sparsify import report, runtime
from sparsify.cli import talk

RUNNER = Path(__file__).with_name("stock.py")
THREADS = 1
INT8_STEPS = 255  # a row of activations is rounded to this many steps


def main() -> int:
    """Run the demo; 0 when the reloaded file agrees."""
    options = _options()
    folder: Path = options.to
    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger().setLevel(logging.ERROR)  # onnxruntime's quantiser talks on the root logger

    subject = _subject(folder / "data", offline=options.offline)
    exact, _ = _optimise(subject, 2, folder)
    pruned, nodes = _optimise(subject, 3, folder)
    talk.show_table(_nodes(nodes))
    talk.show_table(
        _comparison(
            subject,
            Contender("onnxruntime fp32", subject.model),
            Contender("its dynamic int8", dynamic_int8(subject.model, folder / f"{subject.model.stem}.int8.onnx")),
            Contender("sparsify -O2, int8", exact, native=True),
            Contender("sparsify -O3, pruned", pruned, native=True),
            Contender("-O3, stock session", pruned),
        )
    )
    agreement, agree = _reload(subject, pruned, folder)
    talk.show_table(agreement)
    return 0 if agree else 1


@dataclass(frozen=True)
class Contender:
    """A file, and whether its session gets our kernels. Without them it is what `pip install onnxruntime` runs."""

    name: str
    file: Path
    native: bool = False


def _optimise(subject: Subject, level: int, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Write the model at `level` and its report; the file, and what became of each node."""
    talk.say(f"optimising {subject.name} at -O{level}", quiet=False)
    with talk.progress(quiet=False) as progress:
        result = sparsify.optimize(
            subject.model, data=subject.calibration, level=level, threads=THREADS, progress=progress
        )
    file = folder / f"{subject.model.stem}.O{level}.onnx"
    account = file.with_suffix(".json")
    result.save(file)
    report.write(result.report, account)
    talk.say(f"wrote {file} and {account}", quiet=False)
    return file, result.report["nodes"]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=Path("demo"), help="folder to write into (default: demo)")
    parser.add_argument("--offline", action="store_true", help="use the committed model, not the network")
    return parser.parse_args()


def _subject(folder: Path, *, offline: bool) -> Subject:
    if not offline:
        try:
            return minilm(folder)
        except UnavailableError as error:
            talk.say(f"{error}\nfalling back to the model in this repository", quiet=False)
    return digits(folder)


def _nodes(nodes: list[dict[str, Any]]) -> report.Table:
    """What happened to each node and why, a line each; the report says more."""
    # The folder that all names begin with says nothing. Cut at a slash, so that no name is cut in two.
    folder = os.path.commonprefix([n["name"] for n in nodes]).rpartition("/")[0]  # noqa: RUF071
    rows = []
    for node in nodes:
        shape = "x".join(map(str, node["shape"] or ()))
        zeros = "" if node["sparsity"] is None else f"{node['sparsity']:.0%}"
        why = node["reason"].partition(" (")[0]
        if node["decision"] != "left" and node["dense_ms"]:
            why = f"measured {node['dense_ms'] / node['rewritten_ms']:.1f}x faster"
        rows.append((node["name"].removeprefix(folder).lstrip("/"), shape, zeros, node["decision"], why))
    title = f"Nodes below {folder}" if folder else "Nodes"
    return report.Table(title, ("node", ">K x N", ">zeros", "decision", "why"), tuple(rows))


def _comparison(subject: Subject, *contenders: Contender) -> report.Table:
    """Size, latency and drift of each; the first is what the others are compared with."""
    base = contenders[0]
    sessions = {c.name: runtime.session(c.file, threads=THREADS, native=c.native) for c in contenders}
    timings = runtime.interleave(sessions, feeds_of(subject.held_out)[:4])
    drift = {f: _cosine(base.file, f, subject) for f in {c.file for c in contenders}}

    rows = []
    for contender in contenders:
        time, size = timings[contender.name], runtime.size_bytes(contender.file)
        latency = f"{time.median_ms:.2f} ms", f"{time.p25_ms:.2f} to {time.p75_ms:.2f}"
        speedup = f"{timings[base.name].median_ms / time.median_ms:.2f}x"
        rows.append((contender.name, f"{size / 1e6:.1f} MB", *latency, speedup, *drift[contender.file]))
    title = f"{subject.name}: {subject.rows}, {THREADS} thread; cosine of `{subject.output}` on held-out samples"
    columns = ("", ">size", ">latency", ">middle half", ">speedup", ">cosine", ">95 % interval")
    return report.Table(title, columns, tuple(rows))


def _cosine(base: Path, candidate: Path, subject: Subject) -> tuple[str, str]:
    """Cosine to the base's output over the held-out samples, and its confidence interval."""
    drift = sparsify.audit(base, candidate, data=subject.held_out, threads=THREADS)
    cosine = drift.outputs[subject.output].metrics["cosine"]
    return f"{cosine.value:.4f}", f"{cosine.low:.4f} to {cosine.high:.4f}"


def _reload(subject: Subject, optimised: Path, folder: Path) -> tuple[report.Table, bool]:
    """Run the file in a process that has onnxruntime but not us, and compare; True when the answers agree."""
    out = folder / "stock.npz"
    feed = sorted(subject.held_out.glob("*.npz"))[0]
    # Isolated (-I): what runs is the installed onnxruntime, and nothing of this checkout.
    subprocess.run([sys.executable, "-I", str(RUNNER), str(optimised), str(feed), str(out)], check=True)
    native = runtime.run(runtime.session(optimised, threads=THREADS), feeds_of(subject.held_out)[0])
    with np.load(out) as arrays:
        stock = dict(arrays)

    rows, verdicts = [], []
    for name, ours in native.items():
        difference = float(np.sqrt(np.mean((ours.astype(np.float64) - stock[name]) ** 2))) if ours.size else 0.0
        bound = bound_of(ours)
        verdicts.append(difference <= bound)
        rows.append((name, f"{difference:.3g}", f"{bound:.3g}", "agrees" if verdicts[-1] else "DIFFERS"))
    columns = ("output", ">rms difference", ">bound", "verdict")
    title = "The same file in a process with a stock onnxruntime alone"
    return report.Table(title, columns, tuple(rows)), all(verdicts)


def bound_of(output: npt.NDArray[np.generic]) -> float:
    """How far (root mean square) a correct run may be from another: as far as two independent int8 roundings.

    The integer sums of both runs are equal for equal inputs. Their float parts may differ in the last bit, and where
    an activation lies that near the middle between two steps, it is rounded up in one run and down in the other. A
    rounding to steps of s has an error of variance s^2 / 12; two runs whose roundings had nothing to do with each other
    would differ by s / sqrt 6, and correct runs share nearly all of theirs. s is 1/255 of the output's range, as for
    the activations inside. Integers (ids that pass through) must be equal.
    """
    if output.size == 0 or not np.issubdtype(output.dtype, np.floating):
        return 0.0
    values = output.astype(np.float64)
    return float(values.max() - values.min()) / (INT8_STEPS * 6**0.5)


if __name__ == "__main__":
    sys.exit(main())
