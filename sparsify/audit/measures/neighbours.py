"""Which samples are near to which: what search, clustering and retrieval make of embeddings.

For each sample the k others of largest cosine are found once among the base's embeddings and once among the
candidate's; the share that is in both is averaged. k is 10, less where there are fewer than 21 samples: at most half
of the others, since two ways to choose all of them always agree. Chance alone gives k / (n - 1).

At most 64 MiB of embeddings are kept. Where there are more, a fair draw of the samples is kept (each gets a random key,
and those with the smallest keys stay), and is searched and searched for.

The interval is over the samples that are searched for, among those that were audited: the figure itself depends on how
densely samples lie, so it is to be compared on the same data only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparsify.audit.measures.table import Floats, Sum
from sparsify.data import Array

NEAREST = 10
MEMORY = 64 << 20  # bytes of both models' embeddings, as float32
_BLOCK = 1 << 22  # cosines at a time: 32 MiB


class Neighbours:
    """Embeddings [samples, width] seen so far, or a fair draw of them."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._seen = 0
        self._keys: Floats = np.zeros(0)
        self._numbers: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._vectors: npt.NDArray[np.float32] | None = None  # [2, kept, width]

    def add(self, base: Array, candidate: Array) -> None:
        """Both [samples, width]; what is not finite counts as 0."""
        count, width = base.shape
        both = np.stack([np.nan_to_num(a.astype(np.float32), posinf=0, neginf=0) for a in (base, candidate)])
        keys = np.concatenate([self._keys, self._random.random(count)])
        numbers = np.concatenate([self._numbers, np.arange(self._seen, self._seen + count)])
        vectors = both if self._vectors is None else np.concatenate([self._vectors, both], axis=1)
        most = max(2 * NEAREST + 1, MEMORY // (8 * width))
        kept = np.sort(np.argsort(keys, kind="stable")[:most])
        self._seen += count
        self._keys, self._numbers, self._vectors = keys[kept], numbers[kept], vectors[:, kept]

    @property
    def kept(self) -> int:
        """How many samples are searched."""
        return len(self._numbers)

    def fill(self, table: Floats) -> None:
        """Enter the agreement of the samples that were kept into the table of all, [samples, len(Sum)]."""
        k = min(NEAREST, (self.kept - 1) // 2)
        if self._vectors is None or k < 1:
            return
        table[self._numbers, Sum.QUERIES] = k
        table[self._numbers, Sum.NEIGHBOURS] = _both_have(self._vectors, k)


def _both_have(vectors: npt.NDArray[np.float32], k: int) -> Floats:
    """How many of each sample's k nearest are the same in both [2, n, width]."""
    units = vectors.astype(np.float64)
    norms = np.linalg.norm(units, axis=-1, keepdims=True)
    np.divide(units, norms, out=units, where=norms > 0)
    n = units.shape[1]
    found = np.empty(n)
    step = max(1, _BLOCK // n)
    for first in range(0, n, step):
        nearest = [_nearest(side[first : first + step] @ side.T, first, k) for side in units]
        found[first : first + step] = [np.isin(a, b).sum() for a, b in zip(*nearest, strict=True)]
    return found


def _nearest(cosines: Floats, first: int, k: int) -> npt.NDArray[np.int64]:
    """Numbers of the k largest in each row, which is of sample `first` + row; never the sample itself."""
    rows = np.arange(len(cosines))
    cosines[rows, first + rows] = -np.inf
    return np.asarray(np.argpartition(-cosines, k - 1, axis=-1)[:, :k])
