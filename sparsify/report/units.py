"""Numbers as people read them. A missing number is empty, never 0."""

from __future__ import annotations

import math
from collections.abc import Sequence

_SIZES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def size(count: float | None) -> str:
    """Bytes: `12.3 MB` (decimal, as disks and downloads are counted)."""
    if count is None:
        return ""
    for unit, name in _SIZES:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} B"


def milliseconds(value: float | None) -> str:
    """Three digits that matter: `0.0123 ms`, `12.3 ms`."""
    return "" if value is None else f"{digits(value)} ms"


def seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"


def ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def share(value: float | None) -> str:
    """0.5 as `50.0 %`."""
    return "" if value is None else f"{value * 100:.1f} %"


def shape(dims: Sequence[int] | None) -> str:
    return "" if dims is None else "x".join(map(str, dims))


def number(value: float | str | None) -> str:
    """A figure without unit: JSON keeps what is not finite as text."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.6g}"


def digits(value: float) -> str:
    """`value` with three significant digits, never in scientific notation above 1e-4."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(places, 7)}f}"


def count(number: int | None, thing: str) -> str:
    """`1 thread`, `2 threads`; nothing when there is no number."""
    return "" if number is None else f"{number} {thing}{'' if number == 1 else 's'}"


def doublings(value: float, least: float) -> str:
    """A bar that is one block longer for each time that `value` is twice as large; one block at `least`."""
    if not value > 0 or not math.isfinite(value):
        return ""
    return "█" * (1 + max(0, round(math.log2(value / least))))
