import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparsify.solvers.quantize import quantize

_WEIGHTS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 5)),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)


@given(_WEIGHTS)
def test_error_is_half_a_step(weight):
    q, scale = quantize(weight)
    assert q.dtype == np.int8
    assert scale.dtype == np.float32
    assert (scale > 0).all()
    error = np.abs(weight.astype(np.float64) - q * scale.astype(np.float64))
    # Half a step, plus eps/2 of w / scale <= 127 for each of the divisions that give scale and w / scale.
    assert (error <= scale * (0.5 + 127 * float(np.finfo(np.float32).eps))).all()


@given(_WEIGHTS)
def test_zeros_stay_and_the_largest_uses_the_range(weight):
    q, scale = quantize(weight)
    assert (q[weight == 0] == 0).all()
    largest = np.abs(weight).max(axis=0)
    normal = largest / np.float32(127) >= np.finfo(np.float32).tiny
    assert (np.abs(q).max(axis=0)[normal] == 127).all()
    assert (scale[~normal] == 1).all()


def test_levels_bound_the_values():
    q, _ = quantize(np.array([[1.0], [-1.0], [0.4]], np.float32), levels=63)
    assert q.ravel().tolist() == [63, -63, 25]


def test_blocks_do_not_show():
    weight = np.random.default_rng(0).standard_normal((40, 5000)).astype(np.float32)  # 13 rows a block
    q, scale = quantize(weight)
    assert (scale == np.abs(weight).max(axis=0) / np.float32(127)).all()
    assert (q == np.rint(weight / scale)).all()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_refuses_what_is_not_finite(value):
    with pytest.raises(ValueError, match="finite"):
        quantize(np.array([[1.0, 2.0], [value, -3.0]], np.float32))
