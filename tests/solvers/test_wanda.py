import numpy as np
import pytest

from sparsify.patterns import Pattern
from sparsify.solvers import wanda


def test_an_input_that_is_loud_counts_more():
    w = np.array([[1, 1], [2, 2], [3, 3], [4, 4]], np.float32)
    h = np.diag([400.0, 1, 1, 1])  # the first input is 20 times as large
    mask, pruned = wanda.prune(w, h, Pattern.parse("2:4"))
    assert mask[:, 0].tolist() == [True, False, False, True]
    assert (pruned == np.where(mask, w, 0)).all()


def test_what_is_not_finite_is_refused():
    w = np.ones((4, 2), np.float32)
    for weight, moment in ((w * np.nan, np.eye(4)), (w, np.full((4, 4), np.inf)), (w, np.eye(3))):
        with pytest.raises(ValueError, match="finite"):
            wanda.prune(weight, moment, Pattern.parse("2:4"))
