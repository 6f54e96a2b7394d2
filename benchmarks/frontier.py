"""Speed over drift of all-MiniLM-L6-v2: our frontier against what others reach.

    python -m benchmarks.frontier build     our points and those of others; may share the machine; what layers cost and
                                            drift by is what `python -m benchmarks.choice search` found
    python -m benchmarks.frontier measure   latency and drift of all of them; alone on the machine

One thread, batches of 8 texts of 64 word pieces; who learns and who judges is as in `benchmarks.choice`. All models are
timed in turn in one process. Writes benchmarks/results/frontier.json, and docs/frontier.svg where matplotlib is
installed. Exits 1 where none of ours is as fast as a point of another and drifts less; the model as it came is one of
ours, for that is what comes back where nothing pays.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from statistics import median
from typing import Any

import onnx
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

from benchmarks import choice, peer
from benchmarks.choice_subjects import SUBJECTS
from sparsify import modelio, report, runtime, tune
from sparsify.api import facts
from sparsify.cli import talk
from sparsify.rewrite import Choice
from sparsify.tune import knapsack

SUBJECT = "minilm"
# Of summed drifts; the two models of the search are further points.
LIMITS = (0.0005, 0.001, 0.003, 0.006, 0.01, 0.03, 0.08)
ITSELF = "onnxruntime fp32"
_BLOCK = 32  # weights that share a scale: what MatMulNBits' quantiser recommends
_INT8_SUMS = 4  # accuracy_level: activations as int8, the fastest
_PRUNED = ("magnitude", "sparsegpt")  # by onnxsim; its Wanda gives what its magnitude gives
_SHARE = 0.5  # of zeros
_MARKERS = "sD^vPX"  # of those whom we are compared with


def main() -> int:
    """Do the step that was named."""
    logging.getLogger().setLevel(logging.ERROR)  # onnxruntime's quantiser talks on the root logger
    steps = {"build": _build, "measure": _measure}
    if len(sys.argv) != 2 or sys.argv[1] not in steps:
        sys.exit(f"usage: python -m benchmarks.frontier {'|'.join(steps)}")
    return steps[sys.argv[1]]()


def _folder(side: str) -> Path:
    folder = choice.folder_of(SUBJECT) / side
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _build() -> int:
    feeds = SUBJECTS[SUBJECT].search()
    _build_ours(feeds)
    _build_peers(feeds)
    return 0


def _build_ours(feeds: list[Any]) -> None:
    base = modelio.load(SUBJECTS[SUBJECT].model())
    learn = feeds[: len(feeds) // 2]
    names, options = _options()
    for limit in LIMITS:
        taken = knapsack.solve(options, limit)
        plan = {name: option.choice for name, option in zip(names, taken, strict=True)}
        print(f"drift {limit:g}", file=sys.stderr)
        model = base.clone()
        tune.build(model, tune.pipeline("portable"), plan, learn)
        modelio.save(model, _folder("ours") / f"drift {limit:g}.onnx")


def _options() -> tuple[list[str], list[list[knapsack.Option]]]:
    """Of each layer, as the report of the search has them."""
    told = json.loads((choice.folder_of(SUBJECT) / "0.json").read_text())
    layers = [node for node in told["nodes"] if "alternatives" in node]
    options = [
        [knapsack.Option(Choice.parse(a["choice"]), a["ms"], a["drift"]) for a in node["alternatives"]]
        for node in layers
    ]
    return [node["name"] for node in layers], options


def _build_peers(feeds: list[Any]) -> None:
    subject, to = SUBJECTS[SUBJECT], _folder("peers")
    subject.int8(to / "quantize_dynamic.onnx")
    subject.int8(to / "quantize_dynamic, per channel.onnx", per_channel=True)
    for bits in (4, 8):
        how = DefaultWeightOnlyQuantConfig(_BLOCK, is_symmetric=True, accuracy_level=_INT8_SUMS, bits=bits)
        quantizer = MatMulNBitsQuantizer(onnx.load(subject.model()), algo_config=how)
        quantizer.process()
        quantizer.model.save_model_to_file(str(to / f"MatMulNBits {bits}.onnx"))
    for method in _PRUNED:
        pruned, _ = peer.prune(subject.model(), feeds, (method, _SHARE), choice.RESULTS)
        name = f"onnxsim {method} {_SHARE:.0%} + quantize_dynamic, per channel"
        subject.int8(to / f"{name}.onnx", per_channel=True, of=pruned)


def _measure() -> int:
    subject = SUBJECTS[SUBJECT]
    files = {ITSELF: subject.model()}
    files |= {f"ours, {path.stem}": path for path in sorted(_folder("ours").glob("*.onnx"))}
    files |= {f"ours, {text}": choice.folder_of(SUBJECT) / f"{n}.onnx" for n, text in enumerate(subject.budgets)}
    files |= {path.stem: path for path in sorted(_folder("peers").glob("*.onnx"))}
    sessions = {name: runtime.session(file, threads=1) for name, file in files.items()}
    timings = runtime.interleave(sessions, subject.judge()[:4], runs=30, limit_s=200)
    base = timings[ITSELF].samples_ms
    rows: dict[str, dict[str, Any]] = {}
    for name, file in files.items():
        rows[name] = {
            **timings[name].to_dict(),
            "ours": name == ITSELF or name.startswith("ours"),
            "speedup": median(a / b for a, b in zip(base, timings[name].samples_ms, strict=True)),
            "cosine": 1.0 if name == ITSELF else choice.drift_of(subject, files[ITSELF], file)["value"],
            "bytes": runtime.size_bytes(file),
        }
    for row in rows.values():
        row["beaten_by"] = None if row["ours"] else _better(row, rows)
    _print(rows)
    missed = [name for name, row in rows.items() if not row["ours"] and row["beaten_by"] is None]
    choice.RESULTS.mkdir(exist_ok=True)
    found = {**facts.place(), "models": rows, "missed": missed}
    (choice.RESULTS / "frontier.json").write_text(json.dumps(found, indent=2) + "\n")
    draw(rows, f"{subject.title}, 1 thread", Path("docs/frontier.svg"))
    print("\n".join(f"{name}: none of ours is as fast and drifts less" for name in missed) or "all points are beaten")
    return int(bool(missed))


def _better(row: dict[str, Any], rows: dict[str, dict[str, Any]]) -> str | None:
    """The fastest of ours that is at least as fast as `row` and drifts less."""
    ours = {
        n: r for n, r in rows.items() if r["ours"] and r["speedup"] >= row["speedup"] and r["cosine"] > row["cosine"]
    }
    return max(ours, key=lambda name: ours[name]["speedup"], default=None)


def _print(rows: dict[str, dict[str, Any]]) -> None:
    table = [
        (
            name,
            f"{row['median_ms']:.1f} ms",
            f"{row['speedup']:.2f}x",
            f"{row['cosine']:.4f}",
            f"{row['bytes'] / 1e6:.1f} MB",
            row["beaten_by"] or "",
        )
        for name, row in sorted(rows.items(), key=lambda item: (not item[1]["ours"], -item[1]["cosine"]))
    ]
    columns = ("", ">median", ">speed", ">cosine", ">size", "as fast, drifts less")
    talk.show_table(report.Table(f"{SUBJECTS[SUBJECT].title}, 1 thread", columns, tuple(table)))


def draw(rows: dict[str, dict[str, Any]], title: str, to: Path) -> None:
    """Speed over drift, where matplotlib is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(6.4, 4))
    axes = figure.subplots()
    points = sorted((1 - row["cosine"], row["speedup"]) for row in rows.values() if row["ours"])
    axes.plot(*zip(*points, strict=True), marker="o", label="sparsify")
    others = [(name, row) for name, row in rows.items() if not row["ours"]]
    for (name, row), marker in zip(others, _MARKERS, strict=True):
        label = name.replace(" + ", "\n+ ")
        axes.plot(1 - row["cosine"], row["speedup"], marker=marker, linestyle="", label=label)
    axes.set_xscale("symlog", linthresh=1e-4)
    axes.set(xlabel="1 - cosine to the answers of fp32", ylabel="times faster than fp32", title=title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(to, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
