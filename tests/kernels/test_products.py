"""Every kernel of kernels.inc against float64, against exact integers, and against each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from scipy.sparse import csc_array

from sparsify.formats import EncodedWeight, Encoding, encode, encode_columns
from sparsify.kernels import isas
from sparsify.kernels.native import Kernel, Product, Quantized, kernels
from tests.references import (
    ACTIVATIONS,
    bf16,
    bf16_product_bound,
    integer_product,
    product,
    product_bound,
    quantized_rows,
)
from tests.strategies import Layer, layers

QUANTIZE = [k for k in kernels() if k.format == "quantize"]
KERNELS = [k for k in kernels() if k not in QUANTIZE]
INT8 = [k for k in KERNELS if k.format == "int8"]
FLOAT = [k for k in KERNELS if k.format in ("fp32", "columns", "rows")]
BF16 = [k for k in KERNELS if k.format == "bf16"]
TYPES = {
    "fp32": np.float32,
    "columns": np.float32,
    "rows": np.float32,
    "int8": np.int8,
    "bf16": bfloat16,
    "rows_bf16": bfloat16,
    "rows_int8": np.int8,
}
ROWS = [k for k in KERNELS if k.format.startswith("rows")]


def _name(kernel: Kernel) -> str:
    return kernel.name


def _encoded(kernel: Kernel, layer: Layer) -> list[EncodedWeight]:
    if kernel.format == "columns":
        return [encode_columns(csc_array(layer.weight))]
    weight = layer.integers if TYPES[kernel.format] is np.int8 else layer.weight.astype(TYPES[kernel.format])
    if kernel in ROWS:
        return [encode(weight, Encoding.ROWS)]
    return [encode(weight, Encoding.BITMASK), encode(weight, Encoding.DELTA)]


def test_the_library_lists_a_scalar_kernel_of_every_format() -> None:
    assert {k.format for k in KERNELS if k.isa == "scalar"} == set(TYPES)
    assert QUANTIZE[-1].isa == "scalar"


def test_every_path_of_this_cpu_has_a_kernel_of_its_own_and_one_of_every_format_from_it_or_below() -> None:
    paths = isas()
    assert paths[-1] == "scalar"
    assert {k.isa for k in INT8 + BF16} == set(paths)
    for path in paths[:-1]:
        below = paths[paths.index(path) : -1]
        assert {k.format for k in KERNELS if k.isa in below} == set(TYPES)


@pytest.mark.parametrize("kernel", INT8, ids=_name)
@pytest.mark.parametrize("value", [-128, -127, 127])
@pytest.mark.parametrize("share", [0.15, 1.0])
def test_products_that_leave_16_bits_in_pairs_do_not_saturate(kernel: Kernel, value: int, share: float) -> None:
    # Rows of 0 and 255 with weights at one end: every two products sum to 2 * 255 * value.
    rng = np.random.default_rng(2)
    integers = np.where(rng.random((300, 20)) < share, value, 0).astype(np.int8)
    x = np.full((33, 300), 255, np.float32)
    ones, zeros = np.ones(20, np.float32), np.zeros(20, np.float32)
    with Product(kernel.name, encode(integers), zeros, ones) as packed:
        assert np.array_equal(packed.run(x), x.astype(np.int64) @ integers.astype(np.int64))


def test_an_int8_column_that_int32_cannot_sum_is_refused() -> None:
    limit = 65_793  # (2^31 - 1) / (255 * 128)
    one = np.ones(1, np.float32)
    for kernel in INT8:
        with pytest.raises(ValueError, match="column 0 has more non-zeros"):
            Product(kernel.name, encode(np.full((limit + 1, 1), -128, np.int8)), one, one)
        with Product(kernel.name, encode(np.full((limit, 1), -128, np.int8)), one * 0, one) as packed:
            y = packed.run(np.full((1, limit), 255, np.float32))
        assert y == np.float32(-255 * 128 * limit)


@pytest.mark.parametrize("kernel", FLOAT, ids=_name)
@settings(deadline=None, max_examples=60)
@given(layer=layers())
def test_float_kernels_are_within_the_rounding_bound(kernel: Kernel, layer: Layer) -> None:
    exact = product(layer.x, layer.weight, layer.bias)
    bound = product_bound(layer.x, layer.weight, layer.bias)
    for weight in _encoded(kernel, layer):
        with Product(kernel.name, weight, layer.bias) as packed:
            assert np.all(np.abs(packed.run(layer.x) - exact) <= bound)


@pytest.mark.parametrize("kernel", BF16, ids=_name)
@settings(deadline=None, max_examples=60)
@given(layer=layers())
def test_bf16_kernels_are_within_the_rounding_bound(kernel: Kernel, layer: Layer) -> None:
    rounded = bf16(layer.x), bf16(layer.weight), layer.bias
    exact, bound = product(*rounded), bf16_product_bound(*rounded)
    for weight in _encoded(kernel, layer):
        with Product(kernel.name, weight, layer.bias) as packed:
            assert np.all(np.abs(packed.run(layer.x) - exact) <= bound)


@pytest.mark.parametrize("kernel", BF16, ids=_name)
def test_bf16_rounds_to_nearest_even_and_flushes_denormals_at_most(kernel: Kernel) -> None:
    # 1 + 2^-8 and 1 + 3 * 2^-8 are ties, one to be rounded down and one up; their neighbours are not.
    ties = np.float32([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 2**-126 * (1 + 2**-8)])
    x = np.concatenate([ties, np.nextafter(ties, np.float32(0)), np.nextafter(ties, 2 * ties), np.float32([0, -0.0])])
    denormal = np.float32([1e-40, -3e-39, 2**-133])
    x = np.concatenate([x, denormal])[:, None]
    with Product(kernel.name, encode(np.ones((1, 1), bfloat16)), np.zeros(1, np.float32)) as packed:
        y = packed.run(x)
    normal = np.abs(bf16(x)) >= 2**-126
    assert np.array_equal(y[normal], bf16(x)[normal])
    assert np.all((y == bf16(x)) | (y == 0))


@pytest.mark.parametrize("kernel", BF16, ids=_name)
def test_what_rounds_to_infinity_is_infinite(kernel: Kernel) -> None:
    limit = np.float32(2.0**128 - 2.0**119)
    x = np.array([[np.nextafter(limit, np.float32(0)), 0], [limit, 0]], np.float32)
    with Product(kernel.name, encode(np.eye(2, dtype=bfloat16)), np.zeros(2, np.float32)) as packed:
        y = packed.run(x)
    assert y[0].tolist() == [2.0**128 - 2.0**120, 0]
    assert np.isnan(y[1]).all()


@pytest.mark.parametrize("kernel", INT8, ids=_name)
@settings(deadline=None, max_examples=60)
@given(layer=layers())
def test_int8_kernels_are_bit_identical_to_the_definition(kernel: Kernel, layer: Layer) -> None:
    expected = integer_product(layer.x, layer.integers, layer.scale, layer.bias)
    for weight in _encoded(kernel, layer):
        with Product(kernel.name, weight, layer.bias, layer.scale) as packed:
            assert np.array_equal(packed.run(layer.x), expected)


@pytest.mark.parametrize("kernel", QUANTIZE, ids=_name)
@settings(deadline=None, max_examples=60)
@given(layer=layers())
def test_rows_are_quantised_as_defined(kernel: Kernel, layer: Layer) -> None:
    found = Quantized.of(kernel.name, layer.x)
    q, scale, zero_point = quantized_rows(layer.x)
    assert np.array_equal(found.q, q)
    assert np.array_equal(found.scale, scale[:, 0])
    assert np.array_equal(found.zero_point, zero_point[:, 0])


@pytest.mark.parametrize("kernel", INT8, ids=_name)
@settings(deadline=None, max_examples=60)
@given(layer=layers())
def test_quantised_rows_give_the_same_bits(kernel: Kernel, layer: Layer) -> None:
    given = Quantized.of("quantize_scalar", layer.x)
    for weight in _encoded(kernel, layer):
        with Product(kernel.name, weight, layer.bias, layer.scale, "Silu") as packed:
            assert np.array_equal(packed.run(given, layer.residual), packed.run(layer.x, layer.residual))


@pytest.mark.parametrize("kernel", QUANTIZE, ids=_name)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_scale_of_a_row_that_is_not_finite_is_nan(kernel: Kernel, bad: float) -> None:
    x = np.ones((3, 70), np.float32)
    x[1, 69] = bad
    assert np.isnan(Quantized.of(kernel.name, x).scale).tolist() == [False, True, False]


def test_only_int8_kernels_read_quantised_rows() -> None:
    weight = encode(np.ones((2, 3), np.float32))
    refused = pytest.raises(ValueError, match="only int8 kernels")
    with Product("fp32_scalar", weight, np.zeros(3, np.float32)) as packed, refused:
        packed.run(Quantized.of("quantize_scalar", np.zeros((4, 2), np.float32)))
    with pytest.raises(ValueError, match="no kernel `fp32_scalar` that quantises"):
        Quantized.of("fp32_scalar", np.zeros((4, 2), np.float32))
    with pytest.raises(ValueError, match="no kernel `quantize_scalar`"):
        Product("quantize_scalar", weight, np.zeros(3, np.float32))


@pytest.mark.parametrize("kernel", INT8, ids=_name)
@settings(deadline=None, max_examples=20)
@given(layer=layers())
def test_int32_accumulators_are_exact(kernel: Kernel, layer: Layer) -> None:
    # Rows that hold 0 and 255 have scale 1 and zero point 0: with unit scales the output is the accumulator itself.
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (layer.x.shape[0], layer.integers.shape[0])).astype(np.float32)
    x[:, 0] = 255
    ones, zeros = np.ones_like(layer.scale), np.zeros_like(layer.bias)
    exact = x.astype(np.int64) @ layer.integers.astype(np.int64)
    assert np.abs(exact).max(initial=0) < 2**24  # each is a float32
    with Product(kernel.name, encode(layer.integers), zeros, ones) as packed:
        assert np.array_equal(packed.run(x).astype(np.int64), exact)


@pytest.mark.parametrize("kernel", KERNELS, ids=_name)
@settings(deadline=None, max_examples=20)
@given(layer=layers())
def test_activations(kernel: Kernel, layer: Layer) -> None:
    scale = layer.scale if TYPES[kernel.format] is np.int8 else None
    for weight in _encoded(kernel, layer):
        with Product(kernel.name, weight, layer.bias, scale) as linear:
            y = linear.run(layer.x)
        exact = y.astype(np.float64)
        for name, (function, bound, _) in ACTIVATIONS.items():
            with Product(kernel.name, weight, layer.bias, scale, name) as fused:
                assert np.all(np.abs(fused.run(layer.x) - function(exact)) <= bound(exact))


@pytest.mark.parametrize("kernel", KERNELS, ids=_name)
@settings(deadline=None, max_examples=20)
@given(layer=layers())
def test_a_residual_is_added_with_one_rounding(kernel: Kernel, layer: Layer) -> None:
    scale = layer.scale if TYPES[kernel.format] is np.int8 else None
    for weight in _encoded(kernel, layer):
        with Product(kernel.name, weight, layer.bias, scale) as packed:
            y = packed.run(layer.x)
            assert np.array_equal(packed.run(layer.x, layer.residual), y + layer.residual)
        with Product(kernel.name, weight, layer.bias, scale, "Silu") as packed:
            assert np.array_equal(packed.run(layer.x, layer.residual), packed.run(layer.x) + layer.residual)


def test_a_residual_of_another_shape_is_refused() -> None:
    weight = encode(np.ones((2, 3), np.float32))
    refused = pytest.raises(ValueError, match=r"residual has shape \[1, 3\], the product \[4, 3\]")
    with Product("fp32_scalar", weight, np.zeros(3, np.float32)) as packed, refused:
        packed.run(np.zeros((4, 2), np.float32), np.zeros((1, 3), np.float32))


def test_rows_of_another_length_are_refused() -> None:
    weight = encode(np.ones((2, 3), np.int8))
    rows = Quantized(np.zeros((4, 1), np.uint8), np.ones(4, np.float32), np.zeros(4, np.uint8))
    with Product("int8_scalar", weight, np.zeros(3, np.float32), np.ones(3, np.float32)) as packed:
        for x in (np.zeros((4, 1), np.float32), rows):
            with pytest.raises(ValueError, match=r"X has shape \[4, 1\], W \[2, 3\]"):
                packed.run(x)


# All magnitudes of float32 and both ends of every range that the activations treat in their own way.
ARGUMENTS = np.concatenate(
    [
        s * np.concatenate([np.geomspace(1e-44, 3.4e38, 4001), np.linspace(0, 100, 20001)])
        for s in (1.0, -1.0)
    ]
).astype(np.float32)  # fmt: skip


def _applied(kernel: Kernel, activation: str, x: np.ndarray) -> np.ndarray:
    """The activation of x [n], as an epilogue computes it: n columns without weights, and x for a bias."""
    zeros = np.zeros((1, x.size), TYPES[kernel.format])
    weight = encode(zeros, Encoding.ROWS if kernel in ROWS else None)
    if kernel.format == "columns":
        weight = encode_columns(csc_array(zeros))
    scale = np.ones(x.size, np.float32) if TYPES[kernel.format] is np.int8 else None
    with Product(kernel.name, weight, x, scale, activation) as packed:
        return packed.run(np.zeros((1, 1), np.float32))[0]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_everywhere_and_to_the_bit(activation: str) -> None:
    function, bound, _ = ACTIVATIONS[activation]
    exact = ARGUMENTS.astype(np.float64)
    with np.errstate(over="ignore"):
        expected = np.nan_to_num(function(exact), posinf=0.0, neginf=0.0)
    results = [_applied(kernel, activation, ARGUMENTS) for kernel in KERNELS]
    assert results[0][ARGUMENTS < -100].max() <= 0  # saturates: no remnant times a large number
    assert np.all(np.abs(results[0][ARGUMENTS < -100]) <= 1)
    assert np.all(np.abs(results[0] - expected) <= bound(exact))
    for other in results[1:]:
        assert np.array_equal(results[0], other)


@pytest.mark.parametrize("kernel", KERNELS, ids=_name)
def test_activations_of_what_is_not_finite(kernel: Kernel) -> None:
    x = np.array([np.nan, np.inf, -np.inf], np.float32)
    nan, inf = np.nan, np.inf
    expected = {  # as of the function bodies: -inf * 0 is NaN
        "Relu": [nan, inf, 0], "Gelu": [nan, inf, nan], "GeluTanh": [nan, inf, nan], "Silu": [nan, inf, nan],
        "Sigmoid": [nan, 1, 0], "Tanh": [nan, 1, -1],
    }  # fmt: skip
    for activation, y in expected.items():
        assert np.array_equal(_applied(kernel, activation, x), np.float32(y), equal_nan=True)


@settings(deadline=None, max_examples=20)
@given(layer=layers(), activation=st.sampled_from(list(ACTIVATIONS)))
def test_int8_kernels_agree_to_the_bit_to_the_end(layer: Layer, activation: str) -> None:
    weight = encode(layer.integers)
    results = []
    for kernel in INT8:
        with Product(kernel.name, weight, layer.bias, layer.scale, activation) as packed:
            results.append(packed.run(layer.x, layer.residual))
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("rows", [1, 3, 19])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kernel", KERNELS, ids=_name)
def test_a_row_that_is_not_finite_is_nan_and_spoils_no_other(kernel: Kernel, bad: float, rows: int) -> None:
    rng = np.random.default_rng(1)
    row = rows // 2
    x = rng.standard_normal((rows, 70)).astype(np.float32)
    layer = Layer(
        np.eye(70, 40, dtype=np.float32),
        np.eye(70, 40, dtype=np.int8),
        np.zeros(40, np.float32),
        np.ones(40, np.float32),
        x,
    )
    scale = layer.scale if TYPES[kernel.format] is np.int8 else None
    for weight in _encoded(kernel, layer):
        with Product(kernel.name, weight, layer.bias, scale) as packed:
            clean = packed.run(x)
            spoiled = x.copy()
            spoiled[row, 69] = bad  # meets only zero weights
            y = packed.run(spoiled)
        assert np.isnan(y[row]).all()
        assert np.array_equal(np.delete(y, row, axis=0), np.delete(clean, row, axis=0))


def _broken(weight: EncodedWeight) -> dict[str, EncodedWeight]:
    (positions,), values, shape = weight.positions, weight.values, weight.shape
    delta = weight.encoding is Encoding.DELTA
    beyond = positions.copy()
    beyond[-1] = 255
    return {
        "one value too few": EncodedWeight(shape, weight.encoding, (positions,), values[:-1]),
        "positions cut short": EncodedWeight(shape, weight.encoding, (positions[:-1],), values),
        "a position outside": EncodedWeight(shape, weight.encoding, (beyond,), values),
        "a gap of zero": EncodedWeight(
            shape, weight.encoding, (positions * (0 if delta else 1),), values[: 0 if delta else -1]
        ),
        "no columns": EncodedWeight((shape[0], 0), weight.encoding, (positions,), values),
    }


@pytest.mark.parametrize(
    "what", ["one value too few", "positions cut short", "a position outside", "a gap of zero", "no columns"]
)
@pytest.mark.parametrize("encoding", [Encoding.BITMASK, Encoding.DELTA])
@pytest.mark.parametrize("kernel", [k for k in KERNELS if k.format != "columns" and k not in ROWS], ids=_name)
def test_broken_encodings_are_refused(kernel: Kernel, encoding: Encoding, what: str) -> None:
    dense = np.zeros((5, 5), TYPES[kernel.format])
    dense[::2, ::2] = 1  # 25 bits: the last byte of the mask has 7 bits outside
    bias = np.zeros(5, np.float32)
    weight = _broken(encode(dense, encoding))[what]
    with pytest.raises(ValueError, match=r"positions|bitmask|gaps|matrix"):
        Product(kernel.name, weight, bias, bias)


def test_unknown_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="no kernel `int9`"):
        Product("int9", encode(np.ones((1, 1), np.float32)), np.zeros(1, np.float32))
