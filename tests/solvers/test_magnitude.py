import numpy as np
import pytest

from sparsify.patterns import Pattern
from sparsify.solvers import magnitude
from sparsify.solvers.magnitude import prune


def test_keeps_the_largest_magnitudes():
    weight = np.array([[1, -4], [-3, 2], [2, 3], [0, -1]], np.float32)
    mask, pruned = prune(weight, Pattern(2, 4))
    assert mask.tolist() == [[False, True], [True, False], [True, True], [False, False]]
    assert pruned.tolist() == [[0, -4], [-3, 0], [2, 3], [0, 0]]
    assert pruned.dtype == np.float32


def test_unstructured_takes_the_share_asked_for():
    weight = np.arange(1, 11, dtype=np.float32).reshape(5, 2)
    _, pruned = prune(weight, Pattern(), 0.7)
    assert pruned[pruned != 0].tolist() == [8, 9, 10]


@pytest.mark.parametrize("pattern", [Pattern(2, 4), Pattern(), Pattern.parse("unstructured")])
def test_large_weights_are_pruned_in_parts_to_the_same(monkeypatch, pattern):
    weight = np.random.default_rng(0).standard_normal((8, 50)).astype(np.float32)
    expected = prune(weight, pattern, 0.5)
    monkeypatch.setattr(magnitude, "_PART", 8 * 3)
    mask, pruned = prune(weight, pattern, 0.5)
    assert (mask == expected[0]).all()
    assert (pruned == expected[1]).all()
