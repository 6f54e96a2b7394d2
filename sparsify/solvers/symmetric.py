"""Symmetric matrices on their way to another process: one half of the bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Symmetric:
    """A matrix that equals its transpose to the bit; pickled, it is the lower triangle."""

    matrix: F64

    def __reduce__(self) -> tuple[object, ...]:
        return _filled, (self.matrix[np.tri(len(self.matrix), dtype=bool)], len(self.matrix))


def _filled(lower: F64, side: int) -> Symmetric:
    matrix = np.empty((side, side))
    where = np.tri(side, dtype=bool)
    matrix[where] = lower
    matrix.T[where] = lower
    return Symmetric(matrix)
