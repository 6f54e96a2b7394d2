"""Pruning by what data says: layer after layer, biases too, and data that is not nice."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from sparsify import modelio, runtime
from sparsify.errors import UsageError
from sparsify.passes.prune import METHODS, Prune
from sparsify.passes.sparse_int8 import SparseInt8
from sparsify.patterns import Pattern
from sparsify.pruning import FEEDS
from sparsify.solvers import admm
from sparsify.solvers.quantize import quantize
from tests.running import set_constant

WIDTH = 64
RESIDUAL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[B,T,64] x, int64[B,T] attention_mask) => (float[B,T,64] y)
<float[1,1] w1 = {0}, float[1,1] w2 = {0}, float[1] b1 = {0}, float[1] b2 = {0}>
{ h = MatMul(x, w1)
  hb = Add(h, b1)
  r = Relu(hb)
  o = MatMul(r, w2)
  ob = Add(o, b2)
  y = Add(ob, x) }"""
MASK = {"attention_mask": np.array([[1, 1, 1, 0]] * 40, np.int64)}


@pytest.fixture
def block(rng: np.random.Generator) -> ir.Model:
    model = ir.from_onnx_text(RESIDUAL)
    for name in ("w1", "w2"):
        set_constant(model, name, rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 8)
    for name in ("b1", "b2"):
        set_constant(model, name, rng.standard_normal(WIDTH).astype(np.float32) / 8)
    return model


def drawn(rng: np.random.Generator, mix: np.ndarray, feeds: int = 3) -> list[dict[str, np.ndarray]]:
    return [{"x": (rng.standard_normal((40, 4, WIDTH)) @ mix + 0.5).astype(np.float32)} | MASK for _ in range(feeds)]


@pytest.fixture
def mix(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((WIDTH, WIDTH)) / 8


def pruned(model: ir.Model, feeds: list[dict[str, np.ndarray]], **options: object) -> ir.Model:
    changed = modelio.load(model)
    changed.meta[FEEDS] = feeds
    report = Prune(**{"pattern": Pattern(16, 64), "min_size": 1, **options})(changed)  # type: ignore[arg-type]
    assert len(report.changes) == 2
    return changed


def error(model: ir.Model, changed: ir.Model, feeds: list[dict[str, np.ndarray]]) -> float:
    """Mean squared error of the outputs, of the tokens that count."""
    before, after = (runtime.session(m, threads=1) for m in (model, changed))
    keep = MASK["attention_mask"] != 0
    pairs = [(runtime.run(before, f)["y"][keep], runtime.run(after, f)["y"][keep]) for f in feeds]
    return float(np.mean([np.square(a - b).mean() for a, b in pairs]))


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    return {n: v.const_value.numpy() for n, v in model.graph.initializers.items() if v.const_value is not None}


def test_each_method_is_better_than_the_one_before(block, rng, mix):
    feeds, others = drawn(rng, mix, 12), drawn(rng, mix)
    methods = ("magnitude", "wanda", "obs", "admm")
    errors = [error(block, pruned(block, feeds, method=m), others) for m in methods]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("method", ["wanda", "obs"])
def test_many_columns_are_pruned_a_few_at_a_time(block, rng, mix, monkeypatch, method):
    feeds = drawn(rng, mix)
    whole = weights(pruned(block, feeds, method=method))
    monkeypatch.setattr(admm, "COLUMNS", 24)
    parts = weights(pruned(block, feeds, method=method))
    for name in ("w1", "w2"):
        assert np.array_equal(whole[name] == 0, parts[name] == 0)
        # Products of another width sum in another order: 64 terms, in each of 64 steps.
        np.testing.assert_allclose(parts[name], whole[name], rtol=0, atol=64 * 64 * 6e-8 * np.abs(whole[name]).max())


def test_auto_says_what_the_surgeon_would_have_lost_and_loses_less(block, rng, mix):
    changed = modelio.load(block)
    changed.meta[FEEDS] = drawn(rng, mix, 12)
    for change in Prune(Pattern(16, 64), min_size=1)(changed).changes:
        assert 0 < change.facts["output_error"] < change.facts["obs_error"]


def test_making_good_what_earlier_layers_did_helps(block, rng, mix):
    feeds, others = drawn(rng, mix, 12), drawn(rng, mix)
    none, half = (error(block, pruned(block, feeds, correction=c), others) for c in (0.0, 0.5))
    assert half < none


def test_biases_take_up_the_means_and_nothing_else_changes(block, rng, mix):
    feeds = drawn(rng, mix)
    before, changed = weights(block), pruned(block, feeds)
    after = weights(changed)
    assert {n for n in before if (before[n] != after[n]).any()} == {"w1", "w2", "b1", "b2"}
    keep = MASK["attention_mask"] != 0
    means = [
        np.mean([runtime.run(s, f)["y"][keep].mean(axis=0, dtype=np.float64) for f in feeds], axis=0)
        for s in (runtime.session(m, threads=1) for m in (block, changed))
    ]
    # Sums over 64 float32 terms of size 10 at most, 120 tokens a feed.
    assert np.abs(means[0] - means[1]).max() < 64 * 10 * 2.0**-23


def test_a_bias_that_others_read_stays(rng, mix):
    model = ir.from_onnx_text(RESIDUAL.replace("ob = Add(o, b2)", "ob = Add(o, b1)"))
    for name in ("w1", "w2"):
        set_constant(model, name, rng.standard_normal((WIDTH, WIDTH)).astype(np.float32))
    set_constant(model, "b1", np.ones(WIDTH, np.float32))
    assert (weights(pruned(model, drawn(rng, mix)))["b1"] == 1).all()


def test_sparse_int8_finds_the_integers_again(block, rng, mix):
    changed = pruned(block, drawn(rng, mix))
    exact = weights(changed)["w1"].copy()
    q, scale = quantize(exact)
    assert (q * scale == exact).all()
    assert len(SparseInt8()(changed).changes) == 2
    stored = [v for v in weights(changed).values() if v.dtype == np.float32 and v.shape == scale.shape]
    assert any((v == scale).all() for v in stored)


def test_padding_and_rows_that_are_not_finite_do_not_count(block, rng, mix):
    feeds = drawn(rng, mix)
    spoilt = [{**f, "x": f["x"].copy()} for f in feeds]
    for feed in spoilt:
        feed["x"][:, 3] = 1e4  # padding
    one, two = weights(pruned(block, feeds)), weights(pruned(block, spoilt))
    assert all((one[n] == two[n]).all() for n in one)
    spoilt[0]["x"][0, 0] = np.nan
    spoilt[1]["x"][0, 0] = np.inf
    assert all(np.isfinite(w).all() for w in weights(pruned(block, spoilt)).values())


def test_same_data_same_bytes_also_from_a_scratch_folder(block, rng, mix):
    feeds = drawn(rng, mix)
    first, second, small = pruned(block, feeds), pruned(block, feeds), pruned(block, feeds, memory=1)
    assert modelio.digest(first) == modelio.digest(second) == modelio.digest(small)


def test_fewer_tokens_than_inputs(block, rng, mix):
    feeds = [{"x": drawn(rng, mix)[0]["x"][:2, :3], "attention_mask": np.ones((2, 3), np.int64)}]
    found = weights(pruned(block, feeds))
    assert all(np.isfinite(w).all() for w in found.values())
    assert (np.count_nonzero(found["w1"], axis=0) <= 16).all()


def test_a_layer_that_never_ran_is_pruned_by_magnitude(rng):
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (bool c, float[M,8] x) => (float[M,8] y) <float[1,1] w = {0}>
        { y = If(c) <then_branch = t () => (float[M,8] a) { a = MatMul(x, w) },
                     else_branch = e () => (float[M,8] b) { b = Neg(x) }> }""")
    set_constant(model, "w", rng.standard_normal((8, 8)).astype(np.float32))
    model.meta[FEEDS] = [{"c": np.array(False), "x": np.ones((2, 8), np.float32)}]
    options = {"pattern": Pattern(2, 4), "min_size": 1}
    assert "needs data" in Prune(**options, method="obs")(model).refusals[0].reason
    assert Prune(**options)(model).changes[0].facts["method"] == "magnitude"


def test_a_shared_weight_is_judged_by_all_its_inputs(rng):
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[M,8] x, float[M,8] z) => (float[M,8] y, float[M,8] v) <float[1,1] w = {0}>
        { y = MatMul(x, w) v = MatMul(z, w) }""")
    set_constant(model, "w", np.ones((8, 8), np.float32))
    x, z = np.zeros((2, 30, 8), np.float32)
    x[:, :4], z[:, 4:] = rng.standard_normal((2, 30, 4))
    x[:, 0], z[:, 6] = 9 * x[:, 0], 9 * z[:, 6]
    model.meta[FEEDS] = [{"x": x, "z": z}]
    assert len(Prune(Pattern(1, 4), min_size=1, method="wanda")(model).changes) == 2
    kept = (weights(model)["w"] != 0).all(axis=1)
    assert kept.tolist() == [True, False, False, False, False, False, True, False]


def test_options_out_of_range():
    for options in ({"levels": "128"}, {"correction": "1.5"}, {"memory": "-1"}, {"method": "best"}):
        with pytest.raises(UsageError):
            Prune.from_options(options)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_but_the_chosen_weights_and_their_biases_changes(block, rng, mix, method):
    """The second layer is too small to be chosen; bytes of all else, nodes and attributes stay."""
    set_constant(block, "w2", rng.standard_normal((WIDTH, 48)).astype(np.float32))
    set_constant(block, "b2", rng.standard_normal(48).astype(np.float32))
    block.graph[-1].replace_input_with(1, block.graph[-1].inputs[0])  # y = ob + ob: x has another width now
    changed = modelio.load(block)
    changed.meta[FEEDS] = drawn(rng, mix)
    report = Prune(pattern=Pattern(16, 64), min_size=WIDTH * WIDTH, method=method)(changed)
    assert [c.node for c in report.changes] == ["MatMul -> h"]
    before, after = weights(block), weights(changed)
    jointly = method in ("auto", "admm")
    assert {n for n in before if before[n].tobytes() != after[n].tobytes()} == {"w1"} | ({"b1"} if jointly else set())
    assert [str(n) for n in block.graph] == [str(n) for n in changed.graph]
