"""Intersection over union by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sparsify.audit import metrics
from sparsify.audit.measures.boxes import add_boxes, iou
from sparsify.audit.metrics import Sum


@pytest.mark.parametrize(
    ("b", "c", "expected"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1),
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7),
        ((0, 0, 2, 2), (2, 0, 4, 2), 0),  # they touch
        ((0, 0, 4, 4), (1, 1, 3, 3), 1 / 4),
        ((1, 1, 1, 1), (1, 1, 1, 1), 1),  # no area, but the same
        ((1, 1, 1, 1), (2, 2, 2, 2), 0),
        ((0, 0, 2, 2), (2, 2, 0, 0), 0),  # inside out
    ],
)
def test_two_boxes(b: tuple[int, ...], c: tuple[int, ...], expected: float):
    assert iou(np.array(b, float), np.array(c, float)) == pytest.approx(expected)


def test_boxes_are_averaged_over_all():
    b = np.array([[[0, 0, 2, 2], [0, 0, 1, 1]], [[0, 0, 2, 2], [np.nan] * 4]], np.float32)
    c = np.array([[[1, 1, 3, 3], [0, 0, 1, 1]], [[0, 0, 2, 2], [np.nan] * 4]], np.float32)
    table = metrics.sums(b, c, 2, add_boxes)
    assert table[:, Sum.BOXES].tolist() == [2, 1]
    assert metrics.intervals(table, ["box_iou"], 0)["box_iou"].value == pytest.approx((1 / 7 + 1 + 1) / 3)
