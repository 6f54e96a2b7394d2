"""The report of an audit that was accepted, read back to hold another candidate against it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from sparsify.api import facts
from sparsify.audit import DriftReport, Estimate, baseline
from sparsify.budget import METRICS
from sparsify.errors import InputError

_MOST_BYTES = 1_000_000_000  # a row a node and a sample: far more than any model has


@dataclass(frozen=True)
class Baseline:
    """An accepted report.

    Attributes:
        where: its file.
        report: as JSON has it.
        figures: metrics by output.
    """

    where: str
    report: Mapping[str, Any]
    figures: baseline.Figures

    def check(self, base: Callable[[], str], data: Callable[[], str]) -> None:
        """Refuse a report on another base or on other data.

        Args:
            base, data: give the digests of what is audited now.

        Raises:
            InputError: they are not the report's.
        """
        for kind, digest in (("base", base), ("data", data)):
            accepted, now = (self.report.get(kind) or {}).get("sha256"), digest()
            if accepted != now:
                thing = "another base model" if kind == "base" else "other data"
                known = f"sha256 {accepted[:12]}, now {now[:12]}" if isinstance(accepted, str) else "it names none"
                _refuse(f"this report is on {thing}: {known}", self.where)

    def judge(self, found: DriftReport) -> DriftReport:
        """`found` with a verdict for each metric that both have.

        Raises:
            InputError: there is none.
        """
        verdicts, notes = baseline.judge(self.figures, found.outputs)
        if not verdicts:
            _refuse("no metric of this report can be compared", self.where)
        return replace(found, verdicts=(*found.verdicts, *verdicts), notes=(*found.notes, *notes))


def read(path: str | Path) -> Baseline:
    """The report in a file that `sparsify audit --report FILE.json` wrote.

    Raises:
        InputError: no such report, one of another version, or one whose candidate was refused.
    """
    where = f"baseline {path}"
    try:
        if Path(path).stat().st_size > _MOST_BYTES:
            _refuse("this is too large for a report", where)
        report = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}", where=where, hint="check the path") from error
    except (ValueError, RecursionError) as error:
        raise InputError("this is not JSON", where=where, hint=_HINT) from error
    if not isinstance(report, dict) or report.get("kind") != "audit":
        _refuse("this is not the report of an audit", where)
    if report.get("schema") != facts.SCHEMA:
        _refuse(f"this report has schema {report.get('schema')!r}, not {facts.SCHEMA!r}", where)
    if report.get("accepted") is not True:
        _refuse("the candidate of this report was refused itself", where)
    try:
        return Baseline(where, report, _figures(report["drift"]["outputs"]))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError("this report is damaged", where=where, hint=_HINT) from error


_HINT = "make it with `sparsify audit BASE ACCEPTED --data DATA --report FILE.json`, on the same base and data"


def _figures(outputs: Mapping[str, Any]) -> baseline.Figures:
    return {
        name: {metric: _estimate(metric, figure, bool(output["exact"])) for metric, figure in output["metrics"].items()}
        for name, output in outputs.items()
    }


def _estimate(metric: str, figure: Mapping[str, float | None], exact: bool) -> Estimate:
    """A figure as it was before JSON made null of what is not finite (see `OutputDrift.to_dict`)."""
    best = metric in METRICS and METRICS[metric].higher_is_better
    # Of what was accepted nothing is NaN: a ratio is infinite to no error, or negatively so to no signal.
    lost = math.inf if exact or not best else -math.inf
    value, low = (lost if figure[key] is None else float(figure[key] or 0) for key in ("value", "low"))
    return Estimate(value, low, math.inf if figure["high"] is None else float(figure["high"]))


def _refuse(what: str, where: str) -> NoReturn:
    raise InputError(what, where=where, hint=_HINT)
