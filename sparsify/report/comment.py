"""An audit as a comment on a pull request: the verdict first, what is long folded away, never too long to be taken."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from sparsify.report import audit_tables, units
from sparsify.report.markdown import code, fitted, table, text
from sparsify.report.table import Report, Table
from sparsify.report.tables import notes, tables, verdict_of

_BADGES = {
    "failed": "❌ Over the budget",
    "undecided": "❔ Too few samples to decide",
    "passed": "✅ Inside the budget",
    "none": "ℹ️ No budget was set",
}
_STATES = {"failed": "❌ broken", "undecided": "❔ undecided", "passed": "✅ holds"}
_WORST_LAYERS = 3
_CODE = {"Files": (), "Worst samples": (0, 2)}  # columns that hold names or paths; of other tables the first
_MOST_ROWS = 20  # of a table: three texts of 200 characters in each, of 4 bytes at most, are 48 kB


def render(report: Report) -> str:
    """The report as a comment in GitHub's Markdown, of at most 60 kB."""
    drift = report["drift"]
    said = [f"> {text(note)}" for note in notes(report)[:_MOST_ROWS]]
    invented = report["data"]["synthetic"]  # then the figures mean little, which must be read before them
    return fitted(
        [
            marker(report),
            f"## {_badge(report)}",
            f"{_model(report, 'base')} → {_model(report, 'candidate')}",
            *(said if invented else []),
            text(report["summary"]) if not drift["verdicts"] else "",
            _budgets(drift["verdicts"]),
            text(audit_tables.layers_sentence(report)),
            _layers(report),
            *([] if invented else said),
            *_details(report),
        ]
    )


def marker(report: Report) -> str:
    """A comment that nobody sees, the same for the same two files: by it a workflow finds what it wrote before."""
    names = (re.sub(r"[^\w./]+|-+", "-", str((report.get(s) or {}).get("path"))) for s in ("base", "candidate"))
    return f"<!-- sparsify-audit {' '.join(names)} -->"


def _badge(report: Report) -> str:
    verdicts, worst = report["drift"]["verdicts"], verdict_of(report)
    if not verdicts:
        return _BADGES[worst]
    count = sum(verdict["state"] == worst for verdict in verdicts)
    return f"{_BADGES[worst]} ({units.count(count, 'budget') if worst == 'passed' else f'{count} of {len(verdicts)}'})"


def _model(report: Report, side: str) -> str:
    return code(PurePath(report[side]["path"] or side).name)


def _budgets(verdicts: Sequence[dict[str, Any]]) -> str:
    if not verdicts:
        return ""
    worst = sorted(verdicts, key=lambda v: list(_STATES).index(v["state"]))
    rows = [
        (
            _STATES[v["state"]],
            v["budget"],
            v["output"],
            *("" if v[key] is None else units.number(v[key]) for key in ("value", "bound", "limit")),
            v["reason"] or (v["what"] if v["state"] != "passed" and v["value"] is None else ""),
        )
        for v in worst[:_MOST_ROWS]
    ]
    columns = ("verdict", "budget", "output", ">value", ">bound against it", ">limit", "why")
    found = Table("Budgets", columns, tuple(rows))
    return table(_without_empty(found), code_columns=(1, 2)) + _more(len(worst), len(rows))


def _layers(report: Report) -> str:
    rows = [
        (row["node"], row["op"], *(audit_tables.drift(row[key]) for key in ("effect", "own", "accumulated")))
        for row in audit_tables.suspects(report)[:_WORST_LAYERS]
    ]
    columns = ("worst layers", "operator", ">on the outputs", ">own", ">accumulated")
    return table(Table("", columns, tuple(rows)), code_columns=(0, 1)) if rows else ""


def _details(report: Report) -> Iterator[str]:
    for found in tables(report):
        title = re.split(r"[,(]", found.title)[0].strip()
        if title not in ("Budgets", "Suspects"):  # these are above
            cut = Table(found.title, found.columns, found.rows[:_MOST_ROWS])
            yield _folded(
                found.title, table(cut, code_columns=_CODE.get(title, (0,))) + _more(len(found.rows), len(cut.rows))
            )
    yield _folded("How it was measured", table(Table("", ("what", "is"), tuple(_measured(report)))))


def _measured(report: Report) -> Iterator[tuple[str, str]]:
    for side in ("base", "candidate", "data"):
        found = report[side]
        where = found.get("path") or found.get("source") or "from memory"
        yield side, f"`{where}`, sha256 `{found['sha256']}`"
    yield "feeds", str(report["data"]["feeds"])
    yield "seed, threads", f"{report['drift']['seed']}, {report['drift']['threads']}"
    yield "versions", ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    yield "machine", str(report["machine"]["cpu"])


def _folded(title: str, body: str) -> str:
    # The empty lines make what is inside Markdown again.
    return f"<details><summary>{text(title)}</summary>\n\n{body}\n\n</details>"


def _more(all_of_them: int, shown: int) -> str:
    return f"\n\n{all_of_them - shown} more are in the JSON report." if all_of_them > shown else ""


def _without_empty(found: Table) -> Table:
    """Without columns that say nothing in any row."""
    kept = [i for i in range(len(found.columns)) if any(row[i] for row in found.rows)]
    rows = tuple(tuple(row[i] for i in kept) for row in found.rows)
    return Table(found.title, tuple(found.columns[i] for i in kept), rows)
