"""docs/scale.md: what benchmarks/scale.py measured. No figure of it is written here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sparsify import kernels
from sparsify.machine import machine

_GIB = 2**30
_HEAD = """# Truly sparse networks at scale

Written by `python -m benchmarks.scale`; do not edit.

784 inputs, 10 outputs, fp32, hidden neurons with Relu in one layer (wide) or in four (deep); connections are random
(Erdos-Renyi, as those that SET starts from), 20 weights a hidden neuron. The network is built from SciPy matrices made
as a stream, saved, and loaded by another process in an ordinary onnxruntime with the native kernels. Dense, the hidden
layers of the largest deep network here would take {dense} TiB.

* Memory is what loading and running one row added to the process, the mapped file included; *of packed* is its
  ratio to the weights as kernels read them (a value and 2 bytes of row, 4 beyond 65536 inputs). Peak is the highest
  on the way.
* *Cold* is loading after the system was asked to forget its copy of the file, *warm* is loading again.
* *One row* is the median of 5 runs after a first one, on one and on two threads.
* *CPU* is the processor time of the column before it, which other work on the machine disturbs less.
* *Bound* is what no format can be smaller than on average: 4 bytes of value, and the entropy of random positions,
  log2(e K / n) bits for n of K inputs.
* *Difference* is the largest from SciPy's float32 products, over the largest output.

Measured on {machine}, {isa} kernels.
"""


def page(rows: Iterable[dict[str, Any]]) -> str:
    """The page for rows as `benchmarks.scale.measure` makes them."""
    rows = sorted(rows, key=lambda r: (r["shape"], r["neurons"]))
    dense = max((4 * 3 * (r["neurons"] // 4) ** 2 for r in rows if r["shape"] == "deep"), default=0)
    found = machine()
    text = _HEAD.format(
        dense=f"{dense / 2**40:,.0f}", machine=f"{found.cpu}, {found.logical_cores} cores", isa=kernels.isa()
    )
    size = _table(
        ["network", "weights", "built in", "CPU", "peak", "file", "bytes a weight", "bound"],
        (
            [
                _name(r),
                f"{r['weights']:,}",
                f"{r['build_s']:.0f} s",
                f"{r['build_cpu_s']:.0f} s",
                f"{r['build_peak_bytes'] / _GIB:.2f} GiB",
                f"{r['file_bytes'] / _GIB:.2f} GiB",
                f"{r['file_bytes'] / r['weights']:.2f}",
                f"{r['entropy_bytes']:.2f}",
            ]
            for r in rows
        ),
    )
    speed = _table(
        [
            "network",
            "cold",
            "warm",
            "CPU",
            "memory",
            "of packed",
            "peak",
            "one row, 1 thread",
            "CPU",
            "2 threads",
            "difference",
        ],
        (
            [
                _name(r),
                f"{r['load_s_1']:.2f} s",
                f"{r['load_s_2']:.2f} s",
                f"{r['load_cpu_s_2']:.2f} s",
                f"{r['rss_bytes_2'] / _GIB:.2f} GiB",
                f"{r['rss_bytes_2'] / r['packed_bytes']:.2f}",
                f"{r['peak_bytes_2'] / _GIB:.2f} GiB",
                f"{1e3 * r['row_s_1']:.0f} ms",
                f"{1e3 * r['row_cpu_s_1']:.0f} ms",
                f"{1e3 * r['row_s_2']:.0f} ms",
                f"{r['difference']:.0e}",
            ]
            for r in rows
        ),
    )
    return "\n".join([text, "## Building and files", "", *size, "", "## Loading and running", "", *speed, ""])


def _name(row: dict[str, Any]) -> str:
    return f"{row['shape']}, {row['neurons'] / 1e6:g} million"


def _table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    rule = "|--" + "|--:" * (len(head) - 1) + "|"
    return [f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]
