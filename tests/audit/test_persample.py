"""Drift per sample: values by hand, and where the worst come from."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from sparsify.audit import metrics, persample
from sparsify.audit.metrics import Sum
from sparsify.audit.persample import MOST_VALUES, Sample


def tables(*feeds: list[float]) -> list[np.ndarray]:
    """Sums of samples whose base is (1, 0) and whose drift is (0, e)."""
    found = []
    for errors in feeds:
        if not errors:  # as `audit` leaves it for a feed of no rows
            found.append(np.zeros((0, len(Sum))))
            continue
        base = np.tile([1.0, 0.0], (len(errors), 1))
        found.append(metrics.sums(base, base + np.outer(errors, [0, 1]), len(errors)))
    return found


def test_values_are_those_of_the_samples_in_order():
    found = persample.of(tables([0.5, 0.0], [], [2.0]), [["a"], [], ["c"]], floats=True)
    assert (found.metric, found.every, found.values) == ("relative_l2", 1, (0.5, 0.0, 2.0))
    assert found.worst == (Sample(2, 2, 0, "c", 2.0), Sample(0, 0, 0, "a", 0.5))


def test_the_worst_know_their_row():
    found = persample.of(tables([0.0, 0.25], [0.0, 0.0, 0.125]), [[None] * 2, [None] * 3], floats=True)
    assert [(s.sample, s.feed, s.row) for s in found.worst] == [(1, 0, 1), (4, 1, 2)]


def test_integers_disagree():
    sums = metrics.sums(np.array([[1, 2], [3, 4]]), np.array([[1, 2], [3, 5]]), 2)
    found = persample.of([sums], [[None] * 2], floats=False)
    assert (found.metric, found.values) == ("disagreement", (0.0, 0.5))


def test_a_mismatch_is_the_worst_and_is_null_in_json():
    base = np.ones((2, 2))
    found = persample.of([metrics.sums(base, np.array([[1, 1], [1, np.nan]]), 2)], [[None] * 2], floats=True)
    assert found.values == (0.0, math.inf)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["values"] == [0.0, None]
    assert told["worst"][0]["sample"] == 1


def test_many_samples_do_not_make_a_large_report():
    count = 2 * MOST_VALUES + 1
    errors = [0.0] * count
    errors[1] = 3.0  # not among every third
    found = persample.of(tables(errors), [[str(Path("x.npz"))] * count], floats=True)
    assert found.every == 3
    assert len(found.values) <= MOST_VALUES
    assert found.worst == (Sample(1, 0, 1, "x.npz", 3.0),)
