"""The demo: make a real model faster, measure what that did to it, and run the file where Sparsify is not.

    python -m models.demo [--offline] [--to FOLDER]

Writes the optimised model and its report into `demo/`. Exits 1 when the reloaded file gives other answers.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

import sparsify
from models.fetch import UnavailableError
from models.subjects import Subject, digits, dynamic_int8, feeds_of, minilm
from sparsify import report, runtime

RUNNER = Path(__file__).with_name("stock.py")
OURS, STOCK_RUN = "sparsify", "the same file without it"
THREADS = 1
INT8_STEPS = 255  # a row of activations is rounded to this many steps

talk = Console(stderr=True, highlight=False)
data = Console(highlight=False)


def main() -> int:
    """Run the demo; 0 when the reloaded file agrees."""
    options = _options()
    folder: Path = options.to
    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger().setLevel(logging.ERROR)  # onnxruntime's quantiser talks on the root logger

    subject = _subject(folder / "data", offline=options.offline)
    with talk.status(f"optimising {subject.name} at -O3") as status:
        result = sparsify.optimize(
            subject.model,
            data=subject.calibration,
            level=3,
            threads=THREADS,
            progress=lambda done, total, what: status.update(f"step {done + 1} of {total}: {what}"),
        )
    optimised, account = folder / f"{subject.model.stem}.sparse.onnx", folder / "report.json"
    result.save(optimised)
    report.write(result.report, account)
    int8 = dynamic_int8(subject.model, folder / f"{subject.model.stem}.dynamic-int8.onnx")

    data.print(report.drawn(report.nodes(result.report["nodes"])))
    files = {"onnxruntime fp32": subject.model, "its dynamic int8": int8, OURS: optimised, STOCK_RUN: optimised}
    data.print(_comparison(subject, files))
    agree = _reload(subject, optimised, folder)
    talk.print(f"wrote {optimised} and {account}")
    return 0 if agree else 1


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
            talk.print(f"{error}\nfalling back to the model in this repository")
    return digits(folder)


def _comparison(subject: Subject, files: dict[str, Path]) -> Table:
    """Size, latency and drift of each file; the first is what the others are compared with."""
    base = next(iter(files.values()))
    feeds = feeds_of(subject.held_out)
    # Only ours gets our kernels; the others are exactly what `pip install onnxruntime` runs.
    sessions = {name: runtime.session(f, threads=THREADS, native=name == OURS) for name, f in files.items()}
    timings = runtime.interleave(sessions, feeds[:4])
    first = next(iter(timings.values())).median_ms

    columns = ("", "size", "latency", "speedup", f"cosine of `{subject.output}`", "95 % interval")
    table = Table(*columns, title=f"{subject.name}: {subject.rows}, {THREADS} thread, held-out samples")
    for name, file in files.items():
        time = timings[name]
        cosine = ("1", "") if file == base else _cosine(base, file, subject)
        spread = f"{time.median_ms:.2f} ms ({time.p25_ms:.2f} to {time.p75_ms:.2f})"
        table.add_row(
            name, f"{runtime.size_bytes(file) / 1e6:.1f} MB", spread, f"{first / time.median_ms:.2f}x", *cosine
        )
    return table


def _cosine(base: Path, candidate: Path, subject: Subject) -> tuple[str, str]:
    """Cosine to the base's output over the held-out samples, and its confidence interval."""
    drift = sparsify.audit(base, candidate, data=subject.held_out, threads=THREADS)
    cosine = drift.outputs[subject.output].metrics["cosine"]
    return f"{cosine.value:.4f}", f"{cosine.low:.4f} to {cosine.high:.4f}"


def _reload(subject: Subject, optimised: Path, folder: Path) -> bool:
    """Run the file in a process that has onnxruntime but not us; True when the answers agree."""
    feed = sorted(subject.held_out.glob("*.npz"))[0]
    out = folder / "stock.npz"
    # PYTHONPATH and its like are ignored (-I): what runs is the installed onnxruntime and nothing of this checkout.
    subprocess.run([sys.executable, "-I", str(RUNNER), str(optimised), str(feed), str(out)], check=True, env=_plain())
    native = runtime.run(runtime.session(optimised, threads=THREADS), feeds_of(subject.held_out)[0])
    with np.load(out) as arrays:
        stock = dict(arrays)

    table = Table("output", "max abs difference", "bound", "", title="The same file in a stock onnxruntime")
    verdicts = []
    for name, ours in native.items():
        difference = float(np.max(np.abs(ours.astype(np.float64) - stock[name]), initial=0.0))
        bound = _bound(ours)
        verdicts.append(difference <= bound)
        table.add_row(name, f"{difference:.3g}", f"{bound:.3g}", "agrees" if verdicts[-1] else "DIFFERS")
    data.print(table)
    return all(verdicts)


def _bound(output: npt.NDArray[np.generic]) -> float:
    """How far a correct run may be from another: one step of int8 rounding over the range of the output.

    The integer sums of both runs are equal for equal inputs. Their float parts may differ in the last bit, and where
    an activation lies that near the middle between two steps, it is rounded up in one run and down in the other: one
    step, 1/255 of its row's range. The model itself was rounded to such steps, so answers that are within one step
    of each other are equal as far as it can tell. Integers (ids that pass through) must be equal.
    """
    if output.size == 0 or not np.issubdtype(output.dtype, np.floating):
        return 0.0
    values = output.astype(np.float64)
    return float(values.max() - values.min()) / INT8_STEPS


def _plain() -> dict[str, str]:
    """The environment without anything that speaks to us."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SPARSIFY")}


if __name__ == "__main__":
    sys.exit(main())
