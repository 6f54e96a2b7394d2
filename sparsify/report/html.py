"""One self-contained page: nothing is fetched, no font, no request. An audit's has a script that sorts and filters."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import jinja2
from markupsafe import Markup, escape

from sparsify.report import audit_tables, charts, units
from sparsify.report.table import Report
from sparsify.report.tables import common_folder, headline, notes, tables, verdict_of

_TEMPLATES = {"audit": "audit.html.j2"}  # the others are tables and no more


def render(report: Report) -> str:
    """The report as one HTML page."""
    # The templates stand beside this module, in a wheel too.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sparsify.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"code": _code, "drift": audit_tables.drift, "number": units.number, "size": units.size}
    page = environment.get_template(_TEMPLATES.get(report["kind"], "report.html.j2"))
    parts = _audit(report) if report["kind"] == "audit" else {}
    return page.render(
        title=report["title"],
        headline=headline(report),
        tables=tables(report),
        notes=notes(report),
        report=report,
        **parts,
    )


def _code(text: str) -> Markup:
    """Text in which what stands between backticks is code."""
    parts = (f"<code>{escape(p)}</code>" if i % 2 else escape(p) for i, p in enumerate(text.split("`")))
    return Markup("").join(Markup(p) for p in parts)


def _audit(report: Report) -> dict[str, Any]:
    """What the page of an audit shows beside tables."""
    outputs = (report.get("drift") or {}).get("outputs") or {}
    samples = {name: output["per_sample"] for name, output in outputs.items() if output.get("per_sample")}
    drawn = {name: charts.histogram(found["values"]) for name, found in samples.items()}
    layers = report.get("layers") or []
    verdicts = (report.get("drift") or {}).get("verdicts") or []
    known = {table.title.split(",")[0].split(" (")[0]: table for table in tables(report)}
    prefix = common_folder([row["node"] for row in layers])
    return {
        "prefix": prefix,
        "verdict": verdict_of(report),
        "verdicts": verdicts,
        "names": {side: PurePath((report.get(side) or {}).get("path") or side).name for side in ("base", "candidate")},
        "layers": layers,
        "suspects": audit_tables.suspects(report),
        "depth": charts.depth(layers, report["attribution"]) if layers else None,
        "histograms": {name: chart for name, chart in drawn.items() if chart},
        "worst": [(name, s, audit_tables.place(s, report)) for name, found in samples.items() for s in found["worst"]],
        "drift_table": known.get("Drift"),
        "labels_table": known.get("Against labels"),
        "changes": [known[t] for t in ("Files", "Operators that differ") if t in known],
        "weights": [
            audit_tables.weight_cells(row)
            for row in audit_tables.heaviest((report.get("changes") or {}).get("weights") or [])
        ],
        "weight_columns": audit_tables.WEIGHT_COLUMNS,
        "chart_rows": [
            [r["node"], r["op"], *(audit_tables.drift(r[k]) for k in ("own", "accumulated"))] for r in layers
        ],
        "sentence": audit_tables.layers_sentence(report),
        "stamp": audit_tables.stamp_sentence(report),
    }
