"""Real models, all of them: each passes inspect, optimize -O1, -O2, -O3 and audit, or is refused with a reason.

    python -m benchmarks.zoo [--write] [PATH...]

Without PATH: every ONNX file that models/manifest.toml names. A PATH is a model or a folder of them. Commands run one
by one, as a person would type them, each in a process of its own: a crash costs one cell. The audit's samples are made
up from a seed, in the shapes of `FITTING` where a model takes others than it declares: they say that both models run
and how far apart they are, nothing about accuracy. -O3 prunes without data.

With --write each row goes into the table in docs/zoo.md, where rows of other models stay. Exits 1 when a command
crashed, hung, called itself a bug, or refused without a sentence.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from models.fetch import entries, fetch
from sparsify import modelio
from sparsify.api.samples import synthesise
from sparsify.errors import ExitStatus, InputError

LIMIT_S = 1800.0  # a command: the largest model takes a third of it on two cores of 2.5 GHz
SAMPLES = 2
PAGE = Path(__file__).parent.parent / "docs" / "zoo.md"
BEGIN, END = "<!-- zoo: written by python -m benchmarks.zoo --write -->", "<!-- /zoo -->"
_LONGEST = 160  # characters of a refusal in the table
LEVELS = ("-O1", "-O2", "-O3")
# What models take whose declared shapes do not say it: one window of speech, one line of text.
_VOICE = {"input": (1, 576), "state": (2, 1, 128), "sr": ()}
FITTING: dict[str, dict[str, tuple[int, ...]]] = {
    "silero_vad": _VOICE,
    "silero_vad_16k_op15": _VOICE,
    "silero_vad_half": _VOICE,
    "silero_vad_op18_ifless": _VOICE,
    "ch_PP-OCRv4_rec_infer": {"x": (1, 3, 48, 320)},
}
_RATE = 16_000  # samples a second: the only rate that all of these models take

Row = dict[str, Any]


def main() -> int:
    """Run, print, write; 1 when a model neither passed nor was refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help="models or folders of them, instead of the manifest's")
    parser.add_argument("--write", action="store_true", help="put the table into docs/zoo.md")
    options = parser.parse_args()
    seen = []
    for path in _models(options.paths):
        row = _examine(path)
        seen.append(row)
        print(_line(row), flush=True)
        if options.write:
            _write(_line(row))
    bad = [row["model"] for row in seen if not row["good"]]
    print(f"{len(seen) - len(bad)} of {len(seen)} passed or were refused with a reason", file=sys.stderr)
    return 1 if bad or not seen else 0


def _models(paths: list[Path]) -> list[Path]:
    if not paths:
        return [fetch(name) for name, entry in entries().items() if entry.file.endswith(".onnx")]
    return [file for path in paths for file in (sorted(path.rglob("*.onnx")) if path.is_dir() else [path])]


def _examine(path: Path) -> Row:
    """All commands on one model."""
    name = path.stem if path.stem != "model" else f"{path.parent.name}/model"
    row: Row = {"model": name, "bytes": modelio.size(path), "good": True}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        row["inspect"] = _run(row, ["inspect", str(path)], folder)
        samples = _samples(path, folder)
        for level in LEVELS:
            out = folder / f"{level}.onnx"
            row[level] = _run(row, ["optimize", str(path), level, "--threads=1", "--quiet", "-o", str(out)], folder)
            if out.exists() and samples:
                audited = _run(row, ["audit", str(path), str(out), "--data", str(samples)], folder)
                row[level] = f"{row[level]}; {audited}"
                out.unlink()
    return row


def _samples(path: Path, folder: Path) -> Path | None:
    """A folder of made-up feeds; None where none can be made up for the model's inputs."""
    data = folder / "data"
    data.mkdir()
    try:
        model = modelio.load(path)
        for seed in range(SAMPLES):
            feed: dict[str, Any] = dict(synthesise(model, seed)[0])
            for name, shape in FITTING.get(path.stem, {}).items():
                number = np.random.default_rng(seed).standard_normal(shape, np.float32)
                feed |= {name: np.array(_RATE) if name == "sr" else number} if name in feed else {}
            np.savez(data / f"{seed}.npz", **feed)
    except InputError:
        return None
    return data


def _run(row: Row, arguments: list[str], folder: Path) -> str:
    """One command: what its report says in short, or the sentence with which it refused."""
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "sparsify", *arguments, "--report", str(report)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        row["good"] = False
        return f"HUNG: over {LIMIT_S:g} s"
    said = done.stderr.strip().splitlines()
    refusal = next((line for line in said if line.startswith("error: ")), "")
    allowed = {ExitStatus.OK, ExitStatus.REFUSED, ExitStatus.BAD_INPUT}
    if done.returncode not in allowed or (done.returncode == ExitStatus.BAD_INPUT and not refusal):
        row["good"] = False
        return f"FAILED with {done.returncode}: {said[-1] if said else 'no word'}"
    if refusal:
        return f"refused: {_without_place(refusal.removeprefix('error: '))}"
    return _short(json.loads(report.read_text()))


def _without_place(refusal: str) -> str:
    """What a refusal says, not of which scratch file it says it, and no more than a cell takes."""
    what = refusal.rsplit(" (/", 1)[0]
    return what if len(what) <= _LONGEST else f"{what[: _LONGEST // 2]} ... {what[-_LONGEST // 2 :]}"


def _short(report: Row) -> str:
    if report["kind"] == "inspect":
        facts = report["model"]
        return f"{facts['linear']} of {facts['nodes']} nodes"
    if report["kind"] == "optimize":
        layers = [node for node in report["nodes"] if node["shape"]]
        changed = sum(node["decision"] != "left" for node in layers)
        return f"{changed} of {len(layers)} layers" if report["changed"] else f"unchanged: {report['reason']}"
    found = [m["cosine"]["value"] for o in report["drift"]["outputs"].values() if "cosine" in (m := o["metrics"])]
    return f"cosine {min(map(float, found)):.4f}" if found else "audited"


def _line(row: Row) -> str:
    cells = [row["model"], f"{row['bytes'] / 1e6:.1f}", row["inspect"], *(row[level] for level in LEVELS)]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _write(line: str) -> None:
    """Put a row into the table between its marks in docs/zoo.md, in the place of the model's row before, by size."""
    before, rest = PAGE.read_text().split(BEGIN)
    table, after = rest.split(END)
    head, rule, *rows = table.strip().splitlines()
    rows = [row for row in rows if _cells(row)[0] != _cells(line)[0]]
    rows = sorted([*rows, line], key=lambda row: float(_cells(row)[1]))
    PAGE.write_text("\n".join([f"{before}{BEGIN}", head, rule, *rows, f"{END}{after}"]))


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


if __name__ == "__main__":
    sys.exit(main())
