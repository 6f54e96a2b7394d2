from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array, csc_array, random_array

from sparsify.formats import Encoding, decode, encode, encode_columns
from tests.strategies import Layer, layers


@settings(deadline=None)
@given(layer=layers())
def test_decode_is_the_inverse_of_encode(layer: Layer) -> None:
    for weight in (layer.weight, layer.integers):
        for encoding in (Encoding.BITMASK, Encoding.DELTA, None):
            encoded = encode(weight, encoding)
            assert np.array_equal(decode(encoded), weight)
            assert encoded.values.dtype == weight.dtype
            assert encoded.nnz == np.count_nonzero(weight)
    assert np.array_equal(decode(encode_columns(csc_array(layer.weight))), layer.weight)


@settings(deadline=None)
@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=20, unique=True))
def test_gaps_beyond_their_type_are_bridged(positions: list[int]) -> None:
    weight = np.zeros((1, 200_001), np.float32)
    weight[0, positions] = 1
    assert np.array_equal(decode(encode(weight, Encoding.DELTA)), weight)


@pytest.mark.parametrize(
    ("density", "encoding"), [(0.5, Encoding.BITMASK), (0.2, Encoding.BITMASK), (0.05, Encoding.DELTA)]
)
def test_the_smaller_encoding_is_chosen(density: float, encoding: Encoding) -> None:
    weight = random_array((256, 256), density=density, rng=np.random.default_rng(0), dtype=np.float32).toarray()
    chosen = encode(weight)
    assert chosen.encoding is encoding
    assert chosen.nbytes == min(encode(weight, e).nbytes for e in (Encoding.BITMASK, Encoding.DELTA))


def test_bytes_at_half_sparsity_are_what_the_design_says() -> None:
    weight = np.zeros((128, 128), np.int8)
    weight[::2] = 1
    assert encode(weight).nbytes == 128 * 128 * 0.625  # one bit a weight, one byte a value


def test_a_matrix_too_large_to_be_dense_is_encoded() -> None:
    size = 1_000_000  # dense: 4 TB
    rows, columns = np.array([5, 999_999, 0]), np.array([0, 7, 999_999])
    sparse = coo_array((np.array([1.0, 2.0, 3.0]), (rows, columns)), shape=(size, size))
    encoded = encode_columns(sparse)
    assert encoded.shape == (size, size)
    assert encoded.nnz == 3
    assert np.array_equal(np.cumsum(encoded.positions[1], dtype=np.int64)[encoded.values != 0], columns)


def test_not_a_matrix() -> None:
    with pytest.raises(ValueError, match="must be a matrix"):
        encode(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="encode_columns"):
        encode(np.zeros((3, 3), np.float32), Encoding.COLUMNS)
