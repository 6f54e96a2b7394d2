"""The trainer of sparse perceptrons: its gradients, what evolution keeps, and that the result runs in onnxruntime."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsify
from models import set_mlp
from sparsify import runtime


def blobs(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points around four corners of a cube in 20 dimensions."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    corners = np.random.default_rng(1).choice([-1.0, 1.0], (4, 20))
    return (corners[labels] + rng.normal(0, 0.7, (count, 20))).astype(np.float32), labels


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_gradients_are_those_of_the_loss(kind: str) -> None:
    rng = np.random.default_rng(3)
    widths = [6, 9, 7, 4]
    layers = set_mlp.sparse_network(widths, 2.0, rng) if kind == "sparse" else set_mlp.dense_network(widths, rng)
    for layer in layers:
        layer.weight, layer.bias = layer.weight.astype(np.float64), rng.normal(size=layer.bias.size)
    x, labels = rng.normal(size=(11, 6)), rng.integers(0, 4, 11)
    values = set_mlp.forward(layers, x)
    step = 1e-6  # central differences: error of order step^2, and eps / step = 2e-10 of rounding
    for layer, (weight, bias) in zip(layers, set_mlp.gradients(layers, values, labels), strict=True):
        for array, gradient in ((layer.values, weight), (layer.bias, bias)):
            flat, expected = array.reshape(-1), np.asarray(gradient).reshape(-1)
            for i in rng.choice(flat.size, min(flat.size, 8), replace=False):
                before, found = flat[i], []
                for change in (step, -step):
                    flat[i] = before + change
                    found.append(set_mlp.loss(set_mlp.forward(layers, x)[-1], labels))
                flat[i] = before
                assert abs((found[0] - found[1]) / (2 * step) - expected[i]) < 1e-7


@given(inputs=st.integers(1, 30), outputs=st.integers(1, 30), epsilon=st.floats(0.2, 12), zeta=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_evolution_keeps_the_number_of_connections(inputs: int, outputs: int, epsilon: float, zeta: float) -> None:
    rng = np.random.default_rng(0)
    layer = set_mlp.sparse_layer(inputs, outputs, epsilon, rng)
    layer.velocity = rng.normal(size=layer.velocity.size).astype(np.float32)
    before, velocity = layer.weight.copy(), layer.velocity.copy()
    replaced = set_mlp.evolve(layer, zeta, rng)
    after = layer.weight
    assert after.nnz == before.nnz
    assert after.has_canonical_format  # rows ascend, no position twice
    old = dict(zip(zip(*before.nonzero(), strict=True), zip(before.data, velocity, strict=True), strict=True))
    rows, columns = set_mlp.positions(after)
    new = dict(zip(zip(rows, columns, strict=True), zip(after.data, layer.velocity, strict=True), strict=True))
    assert len(new.keys() - old.keys()) == replaced
    for position, pair in new.items():
        assert pair == old.get(position, (0, 0))  # what stays is what it was, with its velocity; new ones are 0


def test_evolution_takes_the_weakest_of_either_sign() -> None:
    rng = np.random.default_rng(0)
    layer = set_mlp.sparse_layer(40, 50, 6.0, rng)
    before = layer.weight.toarray()
    set_mlp.evolve(layer, 0.3, rng)
    gone = (before != 0) & (layer.weight.toarray() == 0)
    for sign in (1, -1):
        mine = np.sign(before) == sign
        assert np.count_nonzero(gone & mine) == int(0.3 * np.count_nonzero(mine))
        assert np.abs(before[gone & mine]).max() <= np.abs(before[mine & ~gone]).min()


def test_evolution_takes_connections_that_never_moved() -> None:
    layer = set_mlp.sparse_layer(40, 50, 6.0, np.random.default_rng(0))
    layer.values[::4] = 0
    unused = {
        (row, column)
        for row, column, value in zip(*set_mlp.positions(layer.weight), layer.values, strict=True)
        if not value
    }
    set_mlp.evolve(layer, 0.9, np.random.default_rng(1))
    assert not unused & set(zip(*set_mlp.positions(layer.weight), strict=True))


def test_evolution_ends_at_three_quarters() -> None:
    layers = set_mlp.sparse_network([20, 60, 4], 4.0, np.random.default_rng(0))
    x, labels = blobs(100)
    options = set_mlp.Options(epochs=16, evolve_every=4)
    steps = []
    for _ in set_mlp.train(layers, x, labels, options):
        steps.append([a.weight.indices.copy() for a in layers])
    changed = [not all(map(np.array_equal, *pair)) for pair in itertools.pairwise(steps)]
    assert np.flatnonzero(changed).tolist() == [2, 6]  # after epochs 4 and 8, of 12


def test_it_learns_and_the_network_runs_in_onnxruntime() -> None:
    x, labels = blobs(600)
    layers = set_mlp.sparse_network([20, 60, 60, 4], 4.0, np.random.default_rng(0))
    started = set_mlp.accuracy(layers, x, labels)
    options = set_mlp.Options(epochs=12, batch=50, rate=0.02, dropout=0.1)
    losses = list(set_mlp.train(layers, x, labels, options))
    fresh, truth = blobs(400, seed=5)
    assert losses[-1] < losses[0] / 2
    assert set_mlp.accuracy(layers, fresh, truth) > 0.9 > started
    model = sparsify.from_scipy(set_mlp.as_scipy(layers))
    expected = set_mlp.forward(layers, fresh)[-1]
    found = runtime.run(runtime.session(model), {"x": fresh})["y"]
    # Two float32 evaluations of the same sums, of at most 61 terms a layer: see tests/api/test_networks.py.
    np.testing.assert_allclose(found, expected, atol=3 * 61 * 2**-23 * np.abs(expected).max())
