"""Every report as the same few tables, whatever it is then written as."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

from sparsify.report import audit_tables, curve, units
from sparsify.report.table import Report, Table


def headline(report: Report) -> str:
    """The one sentence that the report comes down to."""
    return ". ".join(part for part in (str(report.get("summary", "")), audit_tables.layers_sentence(report)) if part)


def notes(report: Report) -> list[str]:
    """What a reader must know to judge the figures."""
    said = [audit_tables.stamp_sentence(report), *((report.get("changes") or {}).get("interface") or [])]
    return [*(note for note in said if note), *((report.get("drift") or {}).get("notes") or [])]


def verdict_of(report: Report) -> str:
    """`passed`, `failed`, `undecided`, or `none` where no budget was set."""
    drift = report.get("drift") or {}
    if drift.get("verdicts"):
        return str(drift["state"])
    return "none" if report.get("accepted", True) else "failed"


def tables(report: Report) -> list[Table]:
    """The tables of a report of any kind; empty ones are left out."""
    return [table for table in _KINDS[report["kind"]](report) if table.rows]


def _optimize(report: Report) -> Iterator[Table]:
    yield _models(report)
    yield from _drift(report)
    yield from nodes(report["nodes"])
    yield _passes(report["passes"])


def _audit(report: Report) -> Iterator[Table]:
    yield from audit_tables.changes(report)
    yield from _drift(report)
    yield from audit_tables.where(report)


def _bisect(report: Report) -> Iterator[Table]:
    yield _guilty(report["guilty"])
    yield from _drift(report)


def _guilty(found: Sequence[dict[str, Any]]) -> Table:
    """A row for each change; the verdict stands with the first of its set."""
    rows = []
    for number, one in enumerate(found, start=1):
        broken = "; ".join(v["what"] for v in one["verdicts"] if not v["passed"])
        for place, change in enumerate(one["changes"]):
            start = ("", "") if place else (str(number), broken)
            rows.append((start[0], ", ".join(change["nodes"]), ", ".join(change["base_nodes"]), start[1]))
    return Table("Sets of changes that break the budget alone", (">set", "nodes", "in the base", "then"), tuple(rows))


def _models(report: Report) -> Table:
    """Size and latency of the input and of the result."""
    latency = report["latency"] or {"base": {}, "candidate": {}, "speedup": None}
    rows = [
        (
            label,
            units.size(report["size"][key]),
            units.milliseconds(latency[key].get("median_ms")),
            _spread(latency[key]),
            units.ratio(latency["speedup"]) if key == "candidate" else "",
        )
        for label, key in (("input", "base"), ("result", "candidate"))
    ]
    on = f", measured on {latency['measured_on']}" if latency.get("measured_on") else ""
    return Table(
        f"Models ({units.count(report['threads'], 'thread')}{on})",
        ("model", ">size", ">latency", ">middle half", ">speedup"),
        tuple(rows),
    )


def _spread(timing: dict[str, float]) -> str:
    if not timing:
        return ""
    return f"{units.digits(timing['p25_ms'])} to {units.milliseconds(timing['p75_ms'])}"


def _drift(report: Report) -> Iterator[Table]:
    drift = report.get("drift")
    if not drift:
        return
    rows = [
        (
            output,
            found.get("kind") or "",
            str(found["samples"]),
            metric,
            _figure(figure["value"], found),
            f"{_figure(figure['low'], found)} to {_figure(figure['high'], found)}",
        )
        for output, found in [*drift["outputs"].items(), *([("all", drift["whole"])] if drift.get("whole") else [])]
        for metric, figure in found["metrics"].items()
    ]
    yield Table("Drift", ("output", "kind", ">samples", "metric", ">value", ">95 % interval"), tuple(rows))
    yield audit_tables.labels(drift.get("labels") or [])
    verdicts = [
        (v["budget"], v["output"], units.number(v["bound"]), STATES[v["state"]]) for v in drift.get("verdicts") or []
    ]
    yield Table("Budgets", ("budget", "output", ">bound against it", "verdict"), tuple(verdicts))


STATES = {"passed": "holds", "failed": "BROKEN", "undecided": "UNDECIDED"}


def _figure(value: float | str | None, output: dict[str, Any]) -> str:
    """A metric; one that is no number is the ratio to an error of 0, unless NaN or infinity spoilt it."""
    if value is not None:
        return units.number(value)
    return "undefined" if output.get("mismatches") else "infinite"


def nodes(found: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """What became of each node, and why. Products that are no linear layers have nothing to count."""
    prefix = common_folder([n["name"] for n in found])
    start = f", names start with {prefix}" if prefix else ""
    layers = [n for n in found if n["shape"]]
    changed = [
        (
            n["name"].removeprefix(prefix),
            units.shape(n["shape"]),
            n["decision"],
            units.share(n["sparsity"]),
            units.milliseconds(n["dense_ms"]),
            units.milliseconds(n["rewritten_ms"]),
            # Decision, zeros and times say what a rewrite is.
            "; ".join(n["refined"]) if n["rewritten_ms"] else n["reason"],
        )
        for n in layers
        if n["decision"] != "left"
    ]
    columns = ("node", ">K x N", "became", ">zeros", ">dense", ">rewritten", "note")
    yield Table(f"Linear layers that were changed{start}", columns, tuple(changed))
    left = [
        (n["name"].removeprefix(prefix), units.shape(n["shape"]), "; ".join((n["reason"], *n["refined"])))
        for n in layers
        if n["decision"] == "left"
    ]
    yield Table(f"Linear layers, left as they are{start}", ("node", ">K x N", "why"), tuple(left))
    others = [(n["name"].removeprefix(prefix), n["reason"].replace(prefix, "")) for n in found if not n["shape"]]
    yield Table(f"Other products, left as they are{start}", ("node", "why"), tuple(others))


def common_folder(names: Sequence[str]) -> str:
    """What all names start with, up to a slash; empty where that is not worth mentioning."""
    if len(names) < 2:
        return ""
    folders = zip(*(name.split("/")[:-1] for name in names), strict=False)
    return "".join(f"{parts[0]}/" for parts in takewhile(lambda parts: len(set(parts)) == 1, folders))


def _passes(steps: Sequence[dict[str, Any]]) -> Table:
    rows = [
        (
            s["pass"],
            str(s["changes"]),
            str(s["refusals"]),
            str(s["nodes"][-1]),
            units.size(s["bytes"][-1]),
            units.seconds(s["seconds"]),
        )
        for s in steps
    ]
    columns = ("pass", ">changes", ">refusals", ">nodes after", ">size after", ">time")
    return Table("Passes", columns, tuple(rows))


def _bench(report: Report) -> Iterator[Table]:
    rows = [
        (
            m["name"],
            units.size(m["size_bytes"]),
            units.milliseconds(m["latency"]["median_ms"]),
            _spread(m["latency"]),
            units.ratio(m["speedup"]["median"]),
            "native" if m["native"] else "onnxruntime's",
        )
        for m in report["models"]
    ]
    title = f"Latency ({units.count(report['threads'], 'thread')}, in turns, measured on {report['measured_on']})"
    yield Table(title, ("model", ">size", ">median", ">middle half", ">speed", "kernels"), tuple(rows))


def _inspect(report: Report) -> Iterator[Table]:
    facts = report["model"]
    rows = [
        ("size", units.size(facts["bytes"])),
        ("nodes", str(facts["nodes"])),
        ("linear layers", str(facts["linear"])),
        ("sparse operators", str(facts["sparse"])),
        ("share of the weights in linear layers", units.share(facts["linear_share"])),
        ("opset", str(facts["opset"])),
    ]
    yield Table("Model", ("what", ">value"), tuple(rows))
    prefix = common_folder([n["name"] for n in report["nodes"]])
    layers = [
        (
            n["name"].removeprefix(prefix),
            units.shape(n["shape"]),
            units.number(n["rows"]),
            units.share(n["zeros"]),
            n["pattern"] or "",
            units.milliseconds(n["dense_ms"]),
            units.ratio(n["speedup_o2"]),
            units.ratio(n["speedup_o3"]),
            n["note"] or "",
        )
        for n in report["nodes"]
        if n["shape"]
    ]
    yield Table(
        f"Linear layers ({units.count(report['threads'], 'thread')}){f', names start with {prefix}' if prefix else ''}",
        ("node", ">K x N", ">rows", ">zeros", ">pattern", ">dense", ">-O2", ">-O3", "note"),
        tuple(layers),
    )
    yield from _sensitivity(report.get("sensitivity") or [])


def _sensitivity(found: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """How far the model drifts when one layer alone is pruned, and a bar for it: each block doubles the drift."""
    if not found:
        return
    prefix = common_folder([row["name"] for row in found])
    least = min((d for row in found for d in row["drifts"] if d > 0), default=1.0)
    rows = [
        (
            row["name"].removeprefix(prefix),
            units.shape(row["shape"]),
            *(f"{drift:.2g}" for drift in row["drifts"]),
            units.doublings(row["drifts"][0], least),
        )
        for row in found
    ]
    sparsities = [units.share(s) for s in found[0]["sparsities"]]
    start = f"; names start with {prefix}" if prefix else ""
    columns = ("layer", ">K x N", *(f">{s} zeros" for s in sparsities), f"at {sparsities[0]}, a block doubles it")
    yield Table(f"Sensitivity: relative squared error of the outputs, one layer pruned{start}", columns, tuple(rows))


def _facts(report: Report) -> Iterator[Table]:
    yield Table(report["title"], ("what", "value"), tuple((k, str(v)) for k, v in report["facts"].items()))


_KINDS = {
    "optimize": _optimize,
    "audit": _audit,
    "bisect": _bisect,
    "frontier": curve.tables,
    "bench": _bench,
    "inspect": _inspect,
    "doctor": _facts,
}
