"""Batches of feeds are the same whoever asks for them, and functions of a batch see each feed with its values."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
import pytest

from sparsify import storage
from sparsify.runtime.batches import each_batch, in_batches

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[M,2] x) => (float[M,2] y) <float[2,2] w = {1,2,3,4}> { h = MatMul(x, w) y = Neg(h) }"""


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, []), (3, [3]), (9, [8, 1]), (128, [8] * 16), (130, [9] * 14 + [4]), (512, [32] * 16)]
)
def test_batches_are_few_and_in_order(count: int, sizes: list[int]):
    batches = in_batches(range(count))
    assert [len(batch) for batch in batches] == sizes
    assert [number for batch in batches for number in batch] == [*range(count)]


def totals(batch: Iterable[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]) -> list[tuple[float, float]]:
    return [(float(feed["x"].sum()), float(values["h"].sum())) for feed, values in batch]


@pytest.mark.parametrize("large", [False, True])
def test_each_feed_comes_with_its_values(large: bool):
    model = ir.from_onnx_text(MODEL)
    if large:
        storage.keep_out_of_memory(model.graph)
    feeds = [{"x": np.full((1, 2), n, np.float32)} for n in range(9)]
    first, second = each_batch(model, feeds, ["h", "no such value"], totals)
    assert first + second == [(2 * n, 10 * n) for n in range(9)]
    assert len(second) == 1


def test_without_feeds_there_is_nothing():
    assert [*each_batch(ir.from_onnx_text(MODEL), [], ["h"], totals)] == []
