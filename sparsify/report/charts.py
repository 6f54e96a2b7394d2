"""Charts as the page draws them: places in percent of the plot, so that it may have any width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparsify.report.audit_tables import drift

_FLOOR = 1e-7  # relative L2 of float32 rounding; what is below is drawn there
_BINS = 32


@dataclass(frozen=True)
class Tick:
    """A line across the plot and its label."""

    at: float  # percent from the top, or from the left
    label: str


@dataclass(frozen=True)
class Depth:
    """Drift along the network, on a logarithmic scale.

    Attributes:
        line: accumulated drift, as points of an SVG polyline in a box of 100 by 100.
        stems: (x, y, label) of each layer that adds drift of its own.
        ticks: of the scale.
        threshold: percent from the top.
        first: percent from the left of the first layer over the threshold; None when none is.
    """

    line: str
    stems: tuple[tuple[float, float], ...]
    ticks: tuple[Tick, ...]
    threshold: float
    first: float | None


@dataclass(frozen=True)
class Histogram:
    """How many samples drifted how far.

    Attributes:
        bars: (x, width, height, label) in percent.
        ticks: along the scale.
        most: samples in the highest bar.
        infinite: samples that are in no bar.
    """

    bars: tuple[tuple[float, float, float, str], ...]
    ticks: tuple[Tick, ...]
    most: int
    infinite: int


def depth(layers: Sequence[dict[str, Any]], attribution: dict[str, Any]) -> Depth:
    """The chart of at least one layer."""
    figures = [row[key] for row in layers for key in ("own", "accumulated")]
    known = [f for f in [*figures, attribution["threshold"]] if f]
    low = math.floor(math.log10(max(_FLOOR, min(known))))
    high = max(low + 1, math.ceil(math.log10(max(known)) + 1e-9))

    def down(figure: float | None) -> float:
        if figure is None:
            return 0.0
        exponent = math.log10(max(figure, 10.0**low))
        return round(100 * (high - exponent) / (high - low), 2)

    places = [round(100 * (index + 0.5) / len(layers), 3) for index in range(len(layers))]
    # What depends on no weight, such as a mask, does not drift: no reason for the line to fall to the bottom.
    drifted = [(x, row) for x, row in zip(places, layers, strict=True) if row["accumulated"] != 0]
    stems = [(x, down(row["own"])) for x, row in zip(places, layers, strict=True) if row["own"] != 0]
    first = next((x for x, row in zip(places, layers, strict=True) if row["node"] == attribution["first"]), None)
    step = math.ceil((high - low) / 6)
    return Depth(
        " ".join(f"{x},{down(row['accumulated'])}" for x, row in drifted) or "0,100",
        tuple((x, y) for x, y in stems if y < 100),
        tuple(Tick(down(10.0**e), _power(e)) for e in range(high, low - 1, -step)),
        down(attribution["threshold"]),
        first,
    )


def histogram(values: Sequence[float | None]) -> Histogram | None:
    """Of the drift of samples; None when there are not two that could be told apart."""
    found = sorted(v for v in values if v is not None)
    if len(found) < 2 or found[0] == found[-1]:
        return None
    wide = found[0] > 0 and found[-1] / found[0] > 100
    scaled = [math.log10(v) for v in found] if wide else found
    low, high = scaled[0], scaled[-1]
    bins = min(_BINS, max(5, math.isqrt(len(found)) * 2))
    counts = [0] * bins
    for v in scaled:
        counts[min(bins - 1, int(bins * (v - low) / (high - low)))] += 1
    edges = [low + (high - low) * i / bins for i in range(bins + 1)]
    real = [10.0**e if wide else e for e in edges]
    bars = [
        (100 * i / bins, 100 / bins, 100 * count / max(counts), f"{count} from {drift(a)} to {drift(b)}")
        for i, (count, a, b) in enumerate(zip(counts, real, real[1:], strict=False))
    ]
    marks = [low + (high - low) * i / 4 for i in (0, 2, 4)]
    ticks = [Tick(at, drift(10.0**e if wide else e)) for at, e in zip((0, 50, 100), marks, strict=True)]
    return Histogram(tuple(bars), tuple(ticks), max(counts), len(values) - len(found))


def _power(exponent: int) -> str:
    return f"{10.0**exponent:g}" if -3 <= exponent <= 3 else f"1e{exponent}"
