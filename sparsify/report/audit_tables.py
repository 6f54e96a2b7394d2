"""The tables of an audit that say where the drift is and what changed. Each is short: JSON and HTML have every row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sparsify.report import units
from sparsify.report.table import Report, Table

MOST_ROWS = 10
_WORST = 3  # of each output


def where(report: Report) -> Iterator[Table]:
    """The suspects and the worst samples."""
    yield _suspects(report)
    yield _worst(report)


def layers_sentence(report: Report) -> str:
    """Where the drift starts and who is to blame, in one sentence; empty without an attribution."""
    found = report.get("attribution")
    if not found or not report.get("layers"):
        return ""
    limit = units.number(found["threshold"])
    first = f"accumulated drift exceeds {limit} first at `{found['first']}`" if found["first"] else None
    start = first or f"no layer's accumulated drift exceeds {limit}"
    rows = suspects(report)
    if not rows or rows[0]["effect"] == 0:
        return f"{start}; no layer alone moves the outputs"
    return f"{start}; what `{rows[0]['node']}` adds moves the outputs most, by {drift(rows[0]['effect'])} alone"


def suspects(report: Report) -> list[dict[str, Any]]:
    """The layers whose effect was measured, worst first."""
    order = {value: place for place, value in enumerate((report.get("attribution") or {}).get("suspects") or [])}
    rows = [row for row in report.get("layers") or [] if row["value"] in order]
    return sorted(rows, key=lambda row: order[row["value"]])


def drift(figure: float | None) -> str:
    """A figure of a layer or a sample that was measured; one that is no number is infinite."""
    return "infinite" if figure is None else f"{figure:.3g}"


def labels(found: list[dict[str, Any]]) -> Table:
    """Both models against what is right."""
    rows = [
        (
            row["output"],
            row["figure"],
            *(units.number(row[side]["value"]) for side in ("base", "candidate", "drop")),
            f"{units.number(row['drop']['low'])} to {units.number(row['drop']['high'])}",
            f"{row['p_value']:.2g}",
        )
        for row in found
    ]
    columns = ("output", "figure", ">base", ">candidate", ">drop", ">95 % interval", ">p")
    tests = ", ".join(dict.fromkeys(f"{row['figure']}: {row['test']}" for row in found))
    return Table(f"Against labels, {found[0]['samples'] if found else 0} ({tests})", columns, tuple(rows))


def changes(report: Report) -> Iterator[Table]:
    """What differs between the two files."""
    found = report.get("changes")
    if not found:
        return
    yield Table("Files", ("what", ">base", ">candidate"), tuple(_facts(report, found)))
    yield Table("Operators that differ", ("operator", ">base", ">candidate"), tuple(_operators(found["operators"])))
    rows = [weight_cells(row) for row in heaviest(found["weights"])[:MOST_ROWS]]
    count = len(found["weights"])
    of = f", {len(rows)} of {count}" if count > len(rows) else ""
    same = f"; {found['same_weights']} are the same" if found["same_weights"] else ""
    yield Table(f"Weights that differ{of}{same}", WEIGHT_COLUMNS, tuple(rows))


WEIGHT_COLUMNS = ("weight", "change", ">shape", ">type", ">zeros", ">relative L2")


def weight_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """One weight that differs, as text."""
    return (
        row["name"],
        row["change"],
        _arrow(*(None if s is None else units.shape(s) or "scalar" for s in row["shape"])),
        _arrow(*row["type"]),
        _arrow(*(None if z is None else units.share(z) for z in row["zeros"])),
        units.number(row["relative_l2"]),
    )


def heaviest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The weights that differ, largest first."""
    return sorted(rows, key=lambda row: -max(size or 0 for size in row["bytes"]))


def stamp_sentence(report: Report) -> str:
    """What the candidate says of its making, and whether that fits; empty when it says nothing."""
    found = report.get("changes") or {}
    stamp = found.get("stamp") or {}
    if not stamp:
        return ""
    checked = {True: "from this base", False: "from ANOTHER base than this one", None: "from an unnamed base"}
    return f"the candidate says that Sparsify {stamp.get('version', '')} made it {checked[found['stamp_source']]}"


def _arrow(*both: str | None) -> str:
    return " to ".join(dict.fromkeys(text for text in both if text is not None))


def _suspects(report: Report) -> Table:
    rows = [
        (row["node"], row["op"], *(drift(row[key]) for key in ("effect", "own", "accumulated")))
        for row in suspects(report)[:MOST_ROWS]
    ]
    return Table(
        "Suspects (relative L2: on the outputs alone, of the layer alone, of all so far)",
        ("layer", "operator", ">effect", ">own", ">accumulated"),
        tuple(rows),
    )


def _worst(report: Report) -> Table:
    rows = []
    for name, output in ((report.get("drift") or {}).get("outputs") or {}).items():
        for sample in (output.get("per_sample") or {}).get("worst", [])[:_WORST]:
            rows.append((name, str(sample["sample"]), place(sample, report), drift(sample["value"])))
    return Table("Worst samples", ("output", ">sample", "where", ">drift"), tuple(rows))


def place(sample: dict[str, Any], report: Report) -> str:
    """Where a sample came from, and where it was saved."""
    saved = report.get("saved") or {}
    files = {one["sample"]: one["file"] for one in saved.get("samples", [])}
    kept = f"; saved as {saved['folder']}/{files[sample['sample']]}" if sample["sample"] in files else ""
    return f"{sample['source'] or 'feed ' + str(sample['feed'])}, row {sample['row']}{kept}"


def _facts(report: Report, found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    yield ("sha256", *(report[side]["sha256"][:12] for side in ("base", "candidate")))
    yield ("size", *(units.size(report[side]["bytes"]) for side in ("base", "candidate")))
    yield ("weights", *map(units.size, found["weight_bytes"]))
    yield ("zeros in float weights", *map(units.share, found["zeros"]))
    yield ("nodes", *map(str, found["nodes"]))
    for domain, versions in found["opsets"].items():
        yield (f"opset {domain}".strip(), *("" if v is None else str(v) for v in versions))
    if found["ir_version"][0] != found["ir_version"][1]:
        yield ("IR version", *map(str, found["ir_version"]))
    if found["producer"][0] != found["producer"][1]:
        yield ("producer", *found["producer"])


def _operators(found: dict[str, list[int]]) -> list[tuple[str, str, str]]:
    largest = sorted(found.items(), key=lambda item: -abs(item[1][1] - item[1][0]))
    return [(name, str(before), str(after)) for name, (before, after) in largest[:MOST_ROWS]]
