"""Perceptrons that are sparse from birth: Sparse Evolutionary Training (SET).

Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse connectivity inspired by network
science", Nature Communications 9, 2018, as in Curci, Mocanu, Pechenizkiy, arXiv 2102.01732.

A layer of K inputs and N outputs starts as a random graph in which each connection is there with probability
min(1, epsilon (K + N) / (K N)). Every few epochs the fraction zeta of the positive weights that are closest to 0 and
of the others go, and as many connections appear between random pairs that are not connected. As in RigL (Evci et al.,
arXiv 1911.11134) these start at 0, and zeta falls as the cosine does, to 0 at three quarters of the training:

    zeta_t = zeta / 2 (1 + cos(pi t / (3/4 epochs)))

    z_l = a_(l-1) W_l + b_l,  a_l = max(z_l, 0),  the last z into a softmax and cross-entropy
    gradient of W_l at its connections only:  dW[i, j] = sum over samples of a_(l-1)[i] delta_l[j]
    momentum SGD with weight decay:  v = momentum v - rate (dW + decay W),  W = W + v

Every product is of a dense batch and a sparse matrix; nothing has the size K N. A layer may also be dense: then it is
an ordinary perceptron, to compare with, trained by the same code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

Array = npt.NDArray[Any]  # float32, or float64 in tests of gradients
Labels = npt.NDArray[np.int64]

_PRODUCTS = 2**22  # terms of a gradient that are in memory at a time


@dataclass
class Layer:
    """W [inputs, outputs], sparse or dense, bias [outputs], and their velocities."""

    weight: Any  # csr_array or ndarray
    bias: Array
    velocity: Array = field(init=False)  # of `values`, in their order
    bias_velocity: Array = field(init=False)

    def __post_init__(self) -> None:
        self.velocity, self.bias_velocity = np.zeros_like(self.values), np.zeros_like(self.bias)

    @property
    def sparse(self) -> bool:
        """Whether it has connections that evolve."""
        return bool(scipy.sparse.issparse(self.weight))

    @property
    def values(self) -> Array:
        """The weights themselves, to be changed in place: [connections], or [inputs, outputs] of a dense layer."""
        found: Array = self.weight.data if self.sparse else self.weight
        return found

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return int(self.values.size + self.bias.size)

    def gradient(self, inputs: Array, delta: Array) -> Array:
        """dW as `values`: inputs [batch, K], delta [batch, N]."""
        if not self.sparse:
            dense: Array = inputs.T @ delta
            return dense
        rows, columns = positions(self.weight)
        found = np.empty_like(self.values)
        x, d = np.ascontiguousarray(inputs.T), np.ascontiguousarray(delta.T)
        step = max(_PRODUCTS // max(len(inputs), 1), 1)
        for first in range(0, found.size, step):
            part = slice(first, first + step)
            found[part] = np.einsum("ij,ij->i", x[rows[part]], d[columns[part]])
        return found

    def update(self, gradient: Array, bias_gradient: Array, options: Options) -> None:
        """One step of momentum SGD."""
        self.velocity *= options.momentum
        self.velocity -= options.rate * (gradient + options.decay * self.values)
        self.values[...] += self.velocity
        self.bias_velocity *= options.momentum
        self.bias_velocity -= options.rate * bias_gradient
        self.bias += self.bias_velocity


@dataclass(frozen=True)
class Options:
    """Of training; as in arXiv 2102.01732, but for what few samples need: a higher rate, and time between evolutions.

    There an epoch has 600 steps, with 4000 samples it has 32: connections that have to prove themselves in 32 steps
    are as good as random (88 % on MNIST after 20 epochs, against 94 % for connections that stay).
    """

    epochs: int = 60
    batch: int = 128
    rate: float = 0.05
    momentum: float = 0.9
    decay: float = 2e-4
    zeta: float = 0.3
    evolve_every: int = 5  # epochs
    dropout: float = 0.3


def positions(weight: scipy.sparse.csr_array) -> tuple[Array, Array]:
    """Row and column of each connection, in the order of `weight.data`."""
    return np.repeat(np.arange(weight.shape[0]), np.diff(weight.indptr)), weight.indices


def sparse_layer(inputs: int, outputs: int, epsilon: float, rng: np.random.Generator) -> Layer:
    """An Erdos-Renyi layer; its weights are normal, of variance 2 / (mean inputs of a neuron) (He et al. 2015)."""
    size = inputs * outputs
    count = min(int(rng.binomial(size, min(1.0, epsilon * (inputs + outputs) / size))), size)
    at = new_positions(np.empty(0, np.int64), count, size, rng)
    spread = (2 * outputs / max(count, 1)) ** 0.5
    values = rng.normal(0, spread, count).astype(np.float32)
    return Layer(_csr(at, values, (inputs, outputs)), np.zeros(outputs, np.float32))


def dense_layer(inputs: int, outputs: int, rng: np.random.Generator) -> Layer:
    """An ordinary layer, He-initialised."""
    weight = rng.normal(0, (2 / inputs) ** 0.5, (inputs, outputs)).astype(np.float32)
    return Layer(weight, np.zeros(outputs, np.float32))


def sparse_network(widths: Sequence[int], epsilon: float, rng: np.random.Generator) -> list[Layer]:
    """Layers of `widths` neurons, inputs first; `epsilon` sets how many connections."""
    return [sparse_layer(k, n, epsilon, rng) for k, n in pairwise(widths)]


def dense_network(widths: Sequence[int], rng: np.random.Generator) -> list[Layer]:
    """The dense network of the same neurons."""
    return [dense_layer(k, n, rng) for k, n in pairwise(widths)]


def new_positions(taken: Array, count: int, size: int, rng: np.random.Generator) -> Array:
    """`count` different numbers below `size` that are not in the ascending `taken`, ascending, all equally likely."""
    found = np.empty(0, np.int64)
    if 4 * (taken.size + count) > size:  # a list of what is free is no longer than 4 times the connections
        free = np.setdiff1d(np.arange(size), taken, assume_unique=True)
        return np.sort(rng.choice(free, count, replace=False))
    while found.size < count:  # three of four draws are good
        drawn = rng.integers(0, size, 2 * (count - found.size))
        drawn = drawn[~np.isin(drawn, taken)]
        fresh = np.unique(np.concatenate([found, drawn]))
        found = fresh if fresh.size <= count else np.sort(rng.choice(fresh, count, replace=False))
    return found


def evolve(layer: Layer, zeta: float, rng: np.random.Generator) -> int:
    """Replace the weakest connections of a sparse layer by random new ones; how many. The layer's density stays.

    New weights and their velocities are 0. (Drawn as the first ones were, they add noise that the next epochs have to
    undo.)
    """
    values, size = layer.values, layer.weight.shape[0] * layer.weight.shape[1]
    rows, columns = positions(layer.weight)
    flat = rows.astype(np.int64) * layer.weight.shape[1] + columns
    gone = np.concatenate([_weakest(values, of, zeta) for of in (values > 0, values <= 0)])
    gone = gone[: size - flat.size]  # a dense layer has nowhere to grow
    keep = np.ones(flat.size, bool)
    keep[gone] = False
    grown = new_positions(np.sort(flat), gone.size, size, rng)
    at = np.concatenate([flat[keep], grown])
    order = np.argsort(at)
    fresh = np.zeros(gone.size, values.dtype)
    layer.weight = _csr(at[order], np.concatenate([values[keep], fresh])[order], layer.weight.shape)
    layer.velocity = np.concatenate([layer.velocity[keep], fresh])[order]
    return int(gone.size)


def _weakest(values: Array, of: npt.NDArray[np.bool_], zeta: float) -> Array:
    """Places of the fraction `zeta` of the weights where `of` is true that are closest to 0."""
    places = np.flatnonzero(of)
    return places[np.argsort(np.abs(values[places]), kind="stable")[: int(zeta * places.size)]]


def forward(
    layers: Sequence[Layer], x: Array, dropout: float = 0.0, rng: np.random.Generator | None = None
) -> list[Array]:
    """Activations [batch, ...]: x, what each hidden layer gives, and the logits; with dropout when training."""
    values = [x]
    for number, layer in enumerate(layers):
        z = values[-1] @ layer.weight + layer.bias
        if number < len(layers) - 1:
            z = np.maximum(z, 0)
            if rng is not None and dropout > 0:
                z *= (rng.random(z.shape, np.float32) >= dropout) / np.float32(1 - dropout)
        values.append(z)
    return values


def loss(logits: Array, labels: Labels) -> float:
    """Mean cross-entropy."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    logarithms = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    return float(logarithms.mean())


def gradients(layers: Sequence[Layer], values: Sequence[Array], labels: Labels, dropout: float = 0.0) -> list[Any]:
    """(dW, db) of the mean cross-entropy for each layer; `values` from `forward`.

    What dropout set to 0 is 0 in `values`, as is what Relu did; what it kept is larger by 1 / (1 - dropout).
    """
    shifted = values[-1] - values[-1].max(axis=1, keepdims=True)
    delta = np.exp(shifted)
    delta /= delta.sum(axis=1, keepdims=True)
    delta[np.arange(len(labels)), labels] -= 1
    delta /= len(labels)
    found = []
    for number in reversed(range(len(layers))):
        layer, inputs = layers[number], values[number]
        found.append((layer.gradient(inputs, delta), delta.sum(axis=0)))
        if number:
            delta = (delta @ layer.weight.T) * (inputs > 0)
            if dropout > 0:
                delta /= delta.dtype.type(1 - dropout)
    return found[::-1]


def train(layers: Sequence[Layer], x: Array, labels: Labels, options: Options, seed: int = 0) -> Iterator[float]:
    """Train in place; after each epoch, its mean loss. Sparse layers evolve between epochs, until the last quarter."""
    rng = np.random.default_rng(seed)
    for epoch in range(options.epochs):
        total = 0.0
        order = rng.permutation(len(labels))
        for first in range(0, len(order), options.batch):
            some = order[first : first + options.batch]
            values = forward(layers, x[some], options.dropout, rng)
            total += loss(values[-1], labels[some]) * len(some)
            steps = gradients(layers, values, labels[some], options.dropout)
            for layer, (weight, bias) in zip(layers, steps, strict=True):
                layer.update(weight, bias, options)
        zeta = _zeta(options, epoch + 1)
        for layer in layers:
            if layer.sparse and zeta > 0:
                evolve(layer, zeta, rng)
        yield total / len(order)


def _zeta(options: Options, epoch: int) -> float:
    """The fraction to replace after `epoch` epochs; 0 where none is."""
    done = epoch / (0.75 * options.epochs)
    if epoch % options.evolve_every or done >= 1:
        return 0.0
    return options.zeta / 2 * (1 + math.cos(math.pi * done))


def accuracy(layers: Sequence[Layer], x: Array, labels: Labels) -> float:
    """Share of `labels` that the largest logit names."""
    return float((forward(layers, x)[-1].argmax(axis=1) == labels).mean())


def as_scipy(layers: Sequence[Layer]) -> list[tuple[scipy.sparse.csr_array, Array, str | None]]:
    """What `sparsify.from_scipy` makes a model of."""
    last = len(layers) - 1
    return [(scipy.sparse.csr_array(a.weight), a.bias, None if i == last else "Relu") for i, a in enumerate(layers)]


def _csr(at: Array, values: Array, shape: tuple[int, int]) -> scipy.sparse.csr_array:
    """The matrix with `values` at the ascending flat positions `at`."""
    rows, columns = np.divmod(at, shape[1])
    ends = np.searchsorted(rows, np.arange(shape[0] + 1))
    return scipy.sparse.csr_array((values, columns.astype(np.int32), ends.astype(np.int32)), shape=shape)
