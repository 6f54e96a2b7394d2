"""docs/accuracy.md from what `benchmarks.accuracy` measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import mean
from typing import Any

from benchmarks.tasks import Task

Row = Mapping[str, Any]

ZEROS = {"32:64": "50 %", "24:64": "62.5 %", "16:64": "75 %", "8:64": "87.5 %"}
METHODS = {
    "magnitude": "magnitude",
    "wanda": "Wanda",
    "obs": "SparseGPT (`obs`)",
    "auto": "`auto`",
    "uneven": "`auto`, uneven",
}


def page(tasks: Mapping[str, Task], rows: Iterable[str], known: Mapping[str, Row]) -> str:
    """The whole page; rows that were not measured are named below each table."""
    names = [*rows]
    places = "; ".join(dict.fromkeys(row["place"] for row in known.values()))
    parts = [_HEAD.format(place=places or "nothing yet")]
    for key, task in tasks.items():
        own = [name.split(" ", 1)[1] for name in names if name.startswith(f"{key} ")]
        parts.append(_task(task, own, {row: known[f"{key} {row}"] for row in own if f"{key} {row}" in known}))
    return "\n".join(parts)


def _task(task: Task, rows: Iterable[str], known: Mapping[str, Row]) -> str:
    figures = [heading for heading, _ in task.columns.values()]
    lines = [f"## {task.title}", "", task.about, ""]
    lines.append(f"| weights | method | {' | '.join(figures)} | layer error | CPU time | wall time | peak memory |")
    lines.append("|---|---|" + "--:|" * (len(figures) + 4))
    lines += [_line(task, row, known[row]) for row in rows if row in known]
    missing = [row for row in rows if row not in known]
    if missing:
        lines += ["", f"Not measured: {', '.join(missing)}."]
    return "\n".join([*lines, "", *_layers(known), ""])


def _line(task: Task, name: str, row: Row) -> str:
    weights, method = _named(name, row, int8=task.int8)
    if method and row.get("setting", task.setting) != task.setting:
        method = f"{method}, {row['setting']}"
    figures = [format(row[key], spec) for key, (_, spec) in task.columns.items()]
    error = "" if row.get("layer_error") is None else f"{row['layer_error']:.4f}"
    wall = f"{row['seconds']:.0f} s{'' if row['load'] <= 1 else ' (busy)'}"
    cost = (
        ["", "", ""]
        if name == "fp32"
        else [f"{row['cpu_seconds']:.0f} s", wall, f"{row['peak_bytes'] / 2**20:.0f} MiB"]
    )
    return f"| {weights} | {method} | {' | '.join([*figures, error, *cost])} |"


def _named(name: str, row: Row, *, int8: bool) -> tuple[str, str]:
    """What the weights are, and by what they became that."""
    if name in ("fp32", "int8"):
        return f"dense, {name}", ""
    if name.startswith("onnxsim"):
        _, method, zeros = name.split(" ")
        return f"{zeros.replace('%', ' %')} zeros, unstructured, fp32", f"onnxsim 0.8.1 {method}"
    level, method = name.split(" ")
    got = f" ({row['sparsity']:.1%} reached)" if method == "uneven" and row.get("sparsity") else ""
    pattern = "N:64" if method == "uneven" else level
    return f"{ZEROS[level]} zeros{got}, {pattern}, {'int8' if int8 else 'fp32'}", METHODS[method]


def _layers(known: Mapping[str, Row]) -> list[str]:
    """On how many layers `auto` displaced less than our own SparseGPT given the same inputs, target and grid."""
    lines = []
    for level in ZEROS:
        for method in ("auto", "uneven"):
            own, other = (known.get(f"{level} {method}", {}).get(key) for key in ("layer_errors", "obs_errors"))
            if not own or not other:
                continue
            worse = [layer for layer in own if own[layer] >= other[layer]]
            named = f"; not on {', '.join(f'`{layer}`' for layer in worse)}" if worse else ""
            means = f"{mean(own.values()):.4f} to {mean(other.values()):.4f} in the mean"
            lines.append(
                f"* {level} {METHODS[method]}: lower on {len(own) - len(worse)} of {len(own)} layers{named}; {means}."
            )
    return (
        ["Layer errors of `auto` beside those of `obs` from the same inputs, target and grid:", "", *lines]
        if lines
        else []
    )


_HEAD = """# What pruning costs in accuracy

Written by `python -m benchmarks.accuracy`; do not edit.

All linear layers, in one shot: no training, no labels. What calibrates is never what judges.

* `auto` prunes and rounds to int8 in one; the other methods prune and `sparse-int8` rounds after them. `uneven` gives
  each layer its own N:64 by measured sensitivity, for the same average.
* layer error: mean over the layers of the share of the outputs' energy that pruning displaced, for the inputs that
  the layers pruned before gave; before int8 for all but `auto`. Between rows the inputs differ, and `auto` aims at the
  outputs of the dense model: the lists below the tables compare layers at the same inputs, target and grid.
* CPU time of the process, both cores together: calibrating, pruning, encoding and verifying; wall time the same on the
  clock, (busy) where the machine did other work or let the row wait; peak memory: of the process, the model in it.
* onnxsim prunes convolutions, too, and offers no choice: their weights are put back. Its SparseGPT was not waited for
  everywhere: 21 million weights of ViT took it 650 s of processor time, and SmolLM2 has 106 million; MNIST's layer of
  3136 inputs took more than 370 s.

Measured on: {place}.
"""
