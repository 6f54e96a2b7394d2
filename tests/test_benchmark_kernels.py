"""The benchmark of kernels measures what its table says; how fast things are is not tested."""

from __future__ import annotations

import pytest

from benchmarks.kernels import Layer, measure, table
from benchmarks.peak import chosen, peak
from sparsify.kernels import isa

pytestmark = pytest.mark.skipif(isa() in (None, "scalar"), reason="sessions run no kernels here")


@pytest.mark.slow
def test_every_contender_of_ours_has_all_figures() -> None:
    layer = Layer("model", "layer", 128, 64, 1)
    rows = measure(layer, rounds=3, threads=2)
    ours = [row for row in rows if row["name"].startswith("ours")]
    assert {row["name"].split()[1] for row in ours} == {"int8", "bf16", "fp32"}
    for row in ours:
        assert min(row["ms"], row["packed_bytes"], row["gbps"], row["pack_gbps"], row["over_one_thread"]) > 0
        assert row["of_peak"] is None or row["of_peak"] > 0
    (others,) = {(row["of_peak"], row["gbps"], row["pack_gbps"]) for row in rows if row not in ours}
    assert others == (None, None, None)
    assert len(table(layer, rows, 2).rows) == len(rows)


@pytest.mark.skipif(not (isa() or "").startswith("avx"), reason="peak.c is for x86-64")
@pytest.mark.parametrize(("format_", "dense"), [("fp32", False), ("int8", True), ("int8", False), ("bf16", False)])
def test_there_is_a_peak_for_the_kernel_of_every_format(format_: str, dense: bool) -> None:
    assert chosen(format_).format == format_
    rate = peak(format_, dense=dense)
    assert rate is not None
    assert rate > 0
