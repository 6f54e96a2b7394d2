"""The frontier as tables and as a drawing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from sparsify.report import units
from sparsify.report.table import Report, Table

_WIDTH, _HEIGHT = 640, 400  # of the drawing, pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 40, 50
_FLOOR = 1e-6  # relative squared error: what is below is drawn there, it has no logarithm at 0


def tables(report: Report) -> Iterator[Table]:
    """What was built, then what was predicted."""
    yield Table(
        "Built and audited on samples of their own",
        (">predicted", ">drift", ">latency", ">speedup", ">size", "output", "metric", ">value", ">95 % interval"),
        tuple(_built(report)),
    )
    rows = [
        (_amount(point, report["unit"]), units.ratio(point["ratio"]), f"{point['drift']:.3g}", _forms(point["plan"]))
        for point in report["points"]
    ]
    yield Table("Predicted, of the linear layers", (">together", ">ratio", ">summed drift", "forms"), tuple(rows))


def _built(report: Report) -> Iterator[tuple[str, ...]]:
    for point in report["built"]:
        start: tuple[str, ...] = (
            _amount(point, report["unit"]),
            f"{point['drift']:.3g}",
            units.milliseconds(point["latency"]["candidate"]["median_ms"]),
            units.ratio(point["latency"]["speedup"]),
            units.size(point["size"]["candidate"]),
        )
        for output, found in point["outputs"]["outputs"].items():
            for metric, figure in found["metrics"].items():
                bounds = f"{units.number(figure['low'])} to {units.number(figure['high'])}"
                yield (*start, output, metric, units.number(figure["value"]), bounds)
                start = ("",) * len(start)


def _amount(point: dict[str, Any], unit: str) -> str:
    return units.size(point["bytes"]) if unit == "bytes" else units.milliseconds(point["ms"])


def _forms(plan: dict[str, str]) -> str:
    """How many layers have each form."""
    counts: dict[str, int] = {}
    for form in plan.values():
        counts[form] = counts.get(form, 0) + 1
    return ", ".join(f"{count} {form}" for form, count in sorted(counts.items(), key=lambda item: -item[1]))


def svg(report: Report) -> str:
    """The predicted curve as a line and the built points as dots: drift, logarithmic, over how many times cheaper."""
    line = [(p["ratio"], p["drift"]) for p in report["points"] if p["ratio"]]
    dots = [(p["ratio"], _measured(p), p) for p in report["built"] if p["ratio"]]
    xs = [1.0, *(x for x, _ in line)]
    ys = [max(y, _FLOOR) for y in (*(y for _, y in line), *(y for _, y, _ in dots))]
    low, high = math.floor(math.log10(min(ys, default=_FLOOR))), math.ceil(math.log10(max(ys, default=1.0)))
    high = max(high, low + 1)
    most = max(xs) if max(xs) > 1 else 2.0

    def at(x: float, y: float) -> tuple[float, float]:
        right = _LEFT + (x - 1) / (most - 1) * (_WIDTH - _LEFT - _RIGHT)
        up = (math.log10(max(y, _FLOOR)) - low) / (high - low)
        return round(right, 1), round(_HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="14">{escape(str(report["title"]))}</text>',
        *_grid(at, low, high, most),
        f'<polyline fill="none" stroke="#1f77b4" stroke-width="2" points="{_path(at, line)}"/>',
    ]
    for x, y, point in dots:
        cx, cy = at(x, y)
        label = f"measured: {point['latency']['speedup']:.2f}x, relative squared error {y:.3g}"
        parts.append(f'<circle cx="{cx}" cy="{cy}" r="5" fill="#d62728"><title>{escape(label)}</title></circle>')
    what = "times smaller" if report["unit"] == "bytes" else "times as fast"
    parts += [
        f'<text x="{_WIDTH // 2}" y="{_HEIGHT - 12}" text-anchor="middle">linear layers, {what} (predicted)</text>',
        f'<text transform="translate(16 {_HEIGHT // 2}) rotate(-90)" text-anchor="middle">'
        "relative squared error: line predicted, dots measured</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _measured(point: dict[str, Any]) -> float:
    """Mean relative squared error of the float outputs of a built point; infinite ones are drawn at 1."""
    found = [o["metrics"].get("relative_l2", {}).get("value") for o in point["outputs"]["outputs"].values()]
    values = [min(float(v), 1.0) ** 2 for v in found if v is not None]
    return sum(values) / len(values) if values else 0.0


def _path(at: Any, points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in (at(*point) for point in points))


def _grid(at: Any, low: int, high: int, most: float) -> Iterator[str]:
    for power in range(low, high + 1):
        x, y = at(1, 10.0**power)
        yield f'<line x1="{x}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}" stroke="#ddd"/>'
        yield f'<text x="{x - 6}" y="{y + 4}" text-anchor="end">1e{power}</text>'
    for step in range(5):
        value = 1 + (most - 1) * step / 4
        x, y = at(value, 10.0**low)
        yield f'<text x="{x}" y="{y + 18}" text-anchor="middle">{value:.2f}</text>'
