"""H made ready for solvers: scaled, damped, and factorised as often as they ask, once for layers that read the same."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from threading import RLock
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from sparsify.parallel import in_threads
from sparsify.solvers.moments import normalized

F32 = npt.NDArray[np.float32]

DAMPING = 0.01  # of an input's own energy
# Of the inputs' mean energy. With 500 digits for 3136 inputs, some of which hardly move, weights grew 300-fold without
# it and the error on other digits was 0.134 (32:64, int8); with it 0.0006, where pruning by magnitude is at 0.006.
FLOOR = 0.01


class Factors:
    """H [K, K] made ready for any number of layers that read the same inputs.

    Threads may share it. Pickled it is H alone: what comes of it would be six times as much to send.

    Attributes:
        given: H as it came.
        moment: H at unit diagonal, damped, float32; see `moments.normalized`.
        scale: S = sqrt(diag H) float32 [K].
        unscaled: S moment S: H with its damping, where weights are not scaled.

    Raises:
        ValueError: H is not square or not finite.
    """

    def __init__(self, moment: npt.NDArray[np.floating], damping: float = DAMPING) -> None:
        self.given = moment
        self._damping = damping
        self._lock = RLock()
        self.moment, self.scale = normalized(moment, damping, FLOOR)
        self.unscaled: F32 = self.moment * self.scale[:, None] * self.scale
        self._inverses: dict[float, F32] = {}
        self._upper: F32 | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Factors, (self.given, self._damping)

    def inverse(self, rho: float) -> F32:
        """(moment + rho I)^-1 float32 [K, K]; its condition is at most (K + rho) / rho.

        Raises:
            ValueError: H has an eigenvalue far below zero.
        """
        if rho not in self._inverses:
            self.prepare([rho])
        return self._inverses[rho]

    def prepare(self, rhos: Iterable[float], *, upper: bool = False) -> None:
        """Have `inverse` of all `rhos` at hand, and `upper`: cores share this work, threads that ask meanwhile wait."""
        with self._lock:
            missing: list[float | None] = [rho for rho in rhos if rho not in self._inverses]
            if upper and self._upper is None:
                missing.insert(0, None)  # the longest first
            for rho, found in zip(missing, in_threads(partial(_factor, self.moment), missing), strict=True):
                if rho is None:
                    self._upper = found
                else:
                    self._inverses[rho] = found

    def upper(self) -> F32:
        """U float32 [K, K], upper triangular, of moment^-1 = U^T U; factorised in float64.

        Raises:
            ValueError: H has an eigenvalue far below zero.
        """
        if self._upper is None:
            self.prepare([], upper=True)
        assert self._upper is not None  # prepared
        return self._upper

    def back(self, scaled: F32) -> F32:
        """S^-1 times scaled weights [K, N]; dead inputs get zeros."""
        inverse = np.divide(1, self.scale, out=np.zeros_like(self.scale), where=self.scale > 0)
        return np.asarray(scaled * inverse[:, None], np.float32)


def _factor(moment: F32, rho: float | None) -> F32:
    return _upper(moment) if rho is None else _inverse(moment, rho)


def _inverse(moment: F32, rho: float) -> F32:
    shifted = moment.copy()
    shifted[np.diag_indices_from(shifted)] += np.float32(rho)
    lower, failed = scipy.linalg.lapack.spotrf(shifted, lower=1, overwrite_a=1)
    if failed:
        raise ValueError(_INDEFINITE)
    found, _ = scipy.linalg.lapack.spotri(lower, lower=1, overwrite_c=1)
    half = np.tril(found)
    return np.ascontiguousarray(half + np.tril(half, -1).T)


def _upper(moment: F32) -> F32:
    """R^-1 of moment = R R^T, R upper triangular: the Cholesky factor of H with inputs in reverse order, reversed."""
    lower, failed = scipy.linalg.lapack.dpotrf(moment[::-1, ::-1].astype(np.float64, order="F"), lower=1, overwrite_a=1)
    if failed:
        raise ValueError(_INDEFINITE)
    found, _ = scipy.linalg.lapack.dtrtri(np.asfortranarray(np.triu(lower[::-1, ::-1])), lower=0, overwrite_c=1)
    return np.ascontiguousarray(found, np.float32)


_INDEFINITE = "the moment is not positive semidefinite"
