"""What hypothesis draws for tests of formats, operators and kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

# Sizes around the multiples of 16 and 64 that kernels work in, and small ones.
SIZES = st.one_of(st.integers(1, 20), st.sampled_from([31, 32, 33, 48, 63, 64, 65, 127, 128, 129, 200, 257]))
ROWS = st.one_of(st.integers(0, 9), st.sampled_from([15, 16, 17, 63, 64, 65, 130]))


def random_sparse(shape: tuple[int, int], density: float, seed: int = 0) -> npt.NDArray[np.float32]:
    """Normal numbers, each kept with probability `density`."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < density, rng.standard_normal(shape), 0).astype(np.float32)


DENSITIES = st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.5, 0.75, 1.0])


@dataclass(frozen=True)
class Layer:
    """A random sparse W [K, N] with some empty and some full columns, bias [N], scale [N] and rows X [M, K]."""

    weight: npt.NDArray[np.float32]
    integers: npt.NDArray[np.int8]
    bias: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    x: npt.NDArray[np.float32]

    @property
    def residual(self) -> npt.NDArray[np.float32]:
        """[M, N], the same each time."""
        shape = len(self.x), len(self.bias)
        return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    k, n, rows = draw(SIZES), draw(SIZES), draw(ROWS)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mask = rng.random((k, n)) < draw(DENSITIES)
    mask[:, rng.random(n) < 0.1] = False
    mask[:, rng.random(n) < 0.1] = True
    integers = np.where(mask, rng.choice([-127, -3, 1, 64, 127], (k, n)), 0).astype(np.int8)
    weight = np.where(mask, rng.standard_normal((k, n)), 0).astype(np.float32)
    x = rng.standard_normal((rows, k)).astype(np.float32) * rng.choice([1e-3, 1.0, 1e3], (rows, 1))
    x = np.where(rng.random((rows, 1)) < 0.2, np.abs(x), x)  # rows of one sign, as after Relu
    x = np.where(rng.random((rows, 1)) < 0.1, 0.0, x).astype(np.float32)
    scale = rng.uniform(1e-3, 1e-2, n).astype(np.float32)
    return Layer(weight, integers, rng.standard_normal(n).astype(np.float32), scale, x)
