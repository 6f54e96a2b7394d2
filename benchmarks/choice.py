"""Models inside drift budgets, against onnxruntime's fp32 and its dynamic int8.

    python -m benchmarks.choice profile [SUBJECT]   times of the layers' forms, for the search; alone on the machine
    python -m benchmarks.choice search [SUBJECT]    a model for each budget; alone on the machine
    python -m benchmarks.choice measure [SUBJECT]   latency and drift of all of them; alone on the machine

SUBJECT is one of `benchmarks.choice_subjects`, minilm if not given. One thread. Search and judgement use different
texts, photographs or files. All models are timed in turn in one process. Writes benchmarks/results/choice-SUBJECT.json;
what is in between lies in the cache of the models. Exits 1 when a target is missed.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import sparsify
from benchmarks.choice_subjects import SUBJECTS, Subject
from models.fetch import cache_folder
from sparsify import api, budget, report, runtime
from sparsify.api import facts
from sparsify.audit import usermetrics
from sparsify.cli import talk

PREDICTED = 0.10  # the predicted latency is to be within this share of the measured one
EFFORT = 1
FP32, INT8 = "onnxruntime fp32", "onnxruntime dynamic int8"
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Do the step that was named."""
    logging.getLogger().setLevel(logging.ERROR)  # onnxruntime's quantiser talks on the root logger
    steps: dict[str, Callable[[str], int]] = {"profile": _profile, "search": _search, "measure": _measure}
    step, name = [*sys.argv[1:], "minilm"][:2] if len(sys.argv) > 1 else ("", "")
    if len(sys.argv) > 3 or step not in steps or name not in SUBJECTS:
        sys.exit(f"usage: python -m benchmarks.choice {'|'.join(steps)} [{'|'.join(SUBJECTS)}]")
    return steps[step](name)


def folder_of(name: str) -> Path:
    """Where the models of a subject are kept."""
    folder = cache_folder() / "choice" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _profile(name: str) -> int:
    subject = SUBJECTS[name]
    feeds = subject.search()[:1]
    costs = folder_of(name) / "costs.json"
    talk.deliver(api.profile(costs, subject.model(), data=feeds, rows=subject.rows, threads=1, effort=EFFORT))
    return 0


def _search(name: str) -> int:
    subject = SUBJECTS[name]
    feeds = subject.search()
    for number, text in enumerate(subject.budgets):
        result = sparsify.optimize(
            subject.model(),
            feeds,
            text,
            metrics=subject.metrics,
            threads=1,
            rows=subject.rows,
            effort=EFFORT,
            progress=lambda done, total, what: print(f"{done}/{total} {what}", file=sys.stderr),
        )
        print(text, result.reason)
        result.save(folder_of(name) / f"{number}.onnx")
        (folder_of(name) / f"{number}.json").write_text(json.dumps(result.report))
        if not result.accepted:
            return 1
    return 0


def _measure(name: str) -> int:
    subject = SUBJECTS[name]
    for metric in subject.metrics:
        usermetrics.load(metric)
    files = {FP32: subject.model(), INT8: subject.int8(folder_of(name) / "int8.onnx")}
    files |= {_name(text): folder_of(name) / f"{number}.onnx" for number, text in enumerate(subject.budgets)}
    judges = subject.judge()
    sessions = {title: runtime.session(file, threads=1) for title, file in files.items()}
    timings = runtime.interleave(sessions, judges[:4], runs=40, limit_s=150)
    rows = {title: _row(title, subject, files, timings) for title in files}
    for number, text in enumerate(subject.budgets):
        told = json.loads((folder_of(name) / f"{number}.json").read_text())
        predicted, base = told["search"]["predicted_ms"], told["latency"]["base"]["median_ms"]
        now = timings[FP32].median_ms / base  # the machine's speed varies
        rows[_name(text)] |= {"predicted_ms": predicted and predicted * now, "reason": told["reason"]}
    _print(subject, rows)
    missed = [sentence for text in subject.budgets for sentence in _missed(text, subject, rows)]
    RESULTS.mkdir(exist_ok=True)
    found = {**facts.place(), "models": rows, "missed": missed}
    (RESULTS / f"choice-{name}.json").write_text(json.dumps(found, indent=2) + "\n")
    print("\n".join(missed) or "all targets held")
    return int(bool(missed))


def drift_of(subject: Subject, base: Path, candidate: Path) -> dict[str, float]:
    """The metric that the subject's budgets are about: value and interval on the data that judges."""
    demand = budget.parse(_first(subject))
    found = sparsify.audit(base, candidate, subject.judge(), metrics=subject.metrics, threads=1)
    metrics = found.outputs[demand.output].metrics if demand.output else found.whole.metrics  # type: ignore[union-attr]
    return {key: getattr(metrics[demand.metric], key) for key in ("value", "low", "high")}


def _first(subject: Subject) -> str:
    return next(iter(subject.budgets))


def _row(title: str, subject: Subject, files: dict[str, Path], timings: dict[str, runtime.Timing]) -> dict[str, Any]:
    pairs = zip(timings[FP32].samples_ms, timings[title].samples_ms, strict=True)
    return {
        **timings[title].to_dict(),
        "speedup": median(a / b for a, b in pairs),
        "bytes": runtime.size_bytes(files[title]),
        "drift": None if title == FP32 else drift_of(subject, files[FP32], files[title]),
        "predicted_ms": None,
    }


def _print(subject: Subject, rows: dict[str, dict[str, Any]]) -> None:
    table = [
        (
            title,
            f"{row['median_ms']:.2f} ms",
            f"{row['speedup']:.2f}x",
            f"{row['drift']['value']:.4f}, {row['drift']['low']:.4f} to {row['drift']['high']:.4f}"
            if row["drift"]
            else "",
            f"{row['predicted_ms']:.2f} ms" if row["predicted_ms"] else "",
            f"{row['bytes'] / 1e6:.1f} MB",
        )
        for title, row in rows.items()
    ]
    columns = ("", ">median", ">speed", f">{budget.parse(_first(subject)).metric}, 95 %", ">predicted", ">size")
    talk.show_table(report.Table(f"{subject.title}, 1 thread", columns, tuple(table)))
    print("\n".join(f"{title}: {row['reason']}" for title, row in rows.items() if "reason" in row))


def _name(text: str) -> str:
    return f"sparsify, {text}"


def _missed(text: str, subject: Subject, rows: dict[str, dict[str, Any]]) -> list[str]:
    ours, int8, name, found = rows[_name(text)], rows[INT8], _name(text), []
    demand, target = budget.parse(text), subject.budgets[text]
    if target > 1 and ours["speedup"] < target:
        found.append(f"{name}: {ours['speedup']:.2f}x fp32, wanted {target}x")
    if target == 1 and not ours["speedup"] > 1 - _SAME:
        found.append(f"{name}: {ours['speedup']:.2f}x fp32, slower than it came")
    if not demand.allows(ours["drift"]["low"]):
        found.append(f"{name}: {demand.metric} is only known to be at least {ours['drift']['low']:.4f}")
    if ours["speedup"] <= int8["speedup"]:
        found.append(f"{name}: no faster than dynamic int8 ({ours['speedup']:.2f}x, {int8['speedup']:.2f}x)")
    if ours["drift"]["value"] <= int8["drift"]["value"] < 1:
        found.append(f"{name}: drifts no less than dynamic int8")
    off = ours["predicted_ms"] / ours["median_ms"] - 1 if ours["predicted_ms"] else 0.0
    if abs(off) > PREDICTED:
        found.append(f"{name}: predicted {off:+.0%} off the measured latency")
    return found


_SAME = 0.02  # of a latency: what two runs of one file in turns differ by


if __name__ == "__main__":
    sys.exit(main())
