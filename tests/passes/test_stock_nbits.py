"""MatMulNBits against the weight that it stores, in float64."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsify import modelio, runtime
from sparsify.errors import InputError, UsageError
from sparsify.passes import stock_nbits
from sparsify.passes.stock_nbits import BLOCKS, StockNBits
from sparsify.rewrite import CHOICE, Choice
from sparsify.solvers.blockwise import Blockwise, quantize
from tests.passes.test_stock_int8 import model_of
from tests.running import EPS, run, set_constant


def stored(found: Blockwise, bits: int, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """The weight [K, N] that a packed one stands for, and the step of each of its elements; in float64, by the book."""

    def opened(packed: np.ndarray) -> np.ndarray:
        if bits == 8:
            return packed.astype(np.float64)
        return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1).astype(np.float64)

    n, blocks = found.scale.shape
    q, zero = opened(found.q).reshape(n, blocks, -1), opened(found.zero)[:, :blocks, None]
    step = np.broadcast_to(found.scale[:, :, None].astype(np.float64), q.shape)
    weight = (q - zero) * step
    return weight.reshape(n, -1)[:, :inputs].T, step.reshape(n, -1)[:, :inputs].T


@given(
    st.integers(1, 70),
    st.integers(1, 9),
    st.sampled_from([4, 8]),
    st.sampled_from(BLOCKS),
    st.integers(0, 9),
    st.sampled_from([1e-38, 1.0, 1e37]),
)
@settings(max_examples=60)
def test_weights_are_off_by_a_step_at_most(k: int, n: int, bits: int, block: int, seed: int, size: float) -> None:
    random = np.random.default_rng(seed)
    w = (random.standard_normal((k, n)) * (random.random((k, n)) < 0.7)).astype(np.float32) * np.float32(size)
    found = quantize(w, bits, block)
    weight, step = stored(found, bits, k)
    # w / s is rounded to float32 before it is rounded to a whole number of at most 255: half a step and 255 EPS of one.
    assert (np.abs(weight - w) <= step * (1 + 600 * EPS)).all()
    assert (weight[w == 0] == 0).all()


def able(bits: int, accuracy: int) -> None:
    """Skip where the installed onnxruntime lacks the operator: 1.22 is the first to have 8 bits."""
    if reason := stock_nbits._obstacle(bits, 32, accuracy):
        pytest.skip(reason)


def test_what_onnxruntime_cannot_do_is_refused(rng, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise InputError("no kernel")

    model, _ = model_of(rng, "y = MatMul(x, w)")
    monkeypatch.setattr(runtime, "session", refuse)
    stock_nbits._obstacle.cache_clear()
    (refusal,) = StockNBits()(model).refusals
    stock_nbits._obstacle.cache_clear()
    assert "has no MatMulNBits of 4 bits with accuracy=4" in refusal.reason


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [16, 32, 128])
def test_the_product_is_that_of_the_stored_weight(rng, bits: int, block: int) -> None:
    able(bits, accuracy=0)
    model, w = model_of(rng, "y = MatMul(x, w)", "float[B,M,32] x", "float[B,M,16] y")
    x = rng.standard_normal((2, 3, 32)).astype(np.float32)
    found = quantize(w, bits, block)
    report = StockNBits(bits=bits, block=block, accuracy=0)(model)
    assert report.changes[0].facts["bytes_after"] == found.nbytes
    onnx.checker.check_model(modelio.to_proto(model))
    weight, _ = stored(found, bits, 32)
    # fp32 sums of 32 products, each of a weight that is rounded once more.
    bound = 2 * 34 * EPS * (np.abs(x) @ np.abs(weight))
    assert (np.abs(run(model, x=x)[0] - x @ weight) <= bound).all()


@pytest.mark.parametrize(("transa", "transb", "beta"), [(0, 0, 1.0), (1, 0, 2.0), (0, 1, 0.0), (1, 1, 1.0)])
def test_gemm(rng, transa: int, transb: int, beta: float) -> None:
    able(bits=8, accuracy=4)
    model, w = model_of(
        rng,
        f"y = Gemm<alpha=0.5, beta={beta}, transA={transa}, transB={transb}>(x, w, c)",
        "float[32,3] x" if transa else "float[3,32] x",
        "float[3,16] y",
    )
    if transb:
        set_constant(model, "w", w.T.copy())
    c = model.graph.initializers["c"].const_value.numpy()
    x = rng.standard_normal((3, 32)).astype(np.float32)
    assert StockNBits(bits=8)(model).modified
    half = (0.5 * w).astype(np.float32)
    weight, step = stored(quantize(half, 8, 32), 8, 32)
    # In int8 each row of a block of X has 127 steps to its largest element: half a step for each of 32 products.
    x_step = np.abs(x).max(axis=1, keepdims=True) / 127
    bound = np.abs(x) @ step + x_step * (np.abs(weight).sum(axis=0) + step.sum(axis=0))
    got = run(model, x=x.T.copy() if transa else x)[0]
    assert (np.abs(got - (x @ half + beta * c)) <= bound + 1e-5).all()
    assert "w" not in model.graph.initializers


def test_layers_that_share_a_weight_share_its_copy(rng) -> None:
    model, _ = model_of(rng, "a = MatMul(x, w) n = Neg(x) b = MatMul(n, w) y = Add(a, b)")
    assert len(StockNBits()(model).changes) == 2
    assert len(model.graph.initializers) == 3 + 1  # and `c`, which nobody reads


def test_it_keeps_to_what_was_chosen(rng) -> None:
    able(bits=8, accuracy=4)
    model, _ = model_of(rng, "y = MatMul(x, w)")
    model.graph[0].meta[CHOICE] = Choice("stock-nbits8")
    assert not StockNBits(bits=4)(model).modified
    assert StockNBits(bits=8)(model).modified


def test_weights_that_are_no_numbers_are_refused(rng) -> None:
    model, w = model_of(rng, "y = MatMul(x, w)")
    set_constant(model, "w", np.full_like(w, np.nan))
    (refusal,) = StockNBits()(model).refusals
    assert "NaN" in refusal.reason


@pytest.mark.parametrize("options", [{"bits": 3}, {"block": 48}, {"accuracy": 1}])
def test_options_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="is one of"):
        StockNBits(**options)
