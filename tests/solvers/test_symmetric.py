"""A symmetric matrix comes out of a pickle as it went in, and is half as long there."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from sparsify.solvers.statistics import Statistics, products
from sparsify.solvers.symmetric import Symmetric


@pytest.mark.parametrize("side", [0, 1, 2, 129])
def test_it_comes_back_to_the_bit(rng: np.random.Generator, side: int):
    rows = rng.standard_normal((7, side))
    matrix = rows.T @ rows
    data = pickle.dumps(Symmetric(matrix), pickle.HIGHEST_PROTOCOL)
    assert pickle.loads(data).matrix.tobytes() == matrix.tobytes()
    assert len(data) < 4 * side * (side + 1) + 512


def test_statistics_come_back_to_the_bit(rng: np.random.Generator):
    before = Statistics(100)
    x = rng.standard_normal((30, 100)).astype(np.float32)
    weight = rng.standard_normal((100, 5)).astype(np.float32)
    before.add(products(x, x + np.float32(0.1)))
    data = pickle.dumps(before, pickle.HIGHEST_PROTOCOL)
    after = pickle.loads(data)
    assert after.tokens == 30
    assert after.moment.tobytes() == before.moment.tobytes()
    assert after.target(weight, 0.5, centred=True).tobytes() == before.target(weight, 0.5, centred=True).tobytes()
    assert len(data) < 13 * 100 * 100  # of the 8 bytes of each of two sums, 4 of one are saved
