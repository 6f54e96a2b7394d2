"""Which weights of W [K, N] may be non-zero: anywhere, as many in each column, N of every M inputs, or in blocks.

N:M blocks run along K and start at row 0. Where M does not divide K the last block has L < M rows
and keeps ceil(N * L / M) of them, so that no column's tail is emptied.

Blocks `4x1` are 4 consecutive outputs (columns) of one input, kept or dropped together; the last block of an input has
fewer where 4 does not divide N.

Ties are broken towards the lower row, then the lower column: the same scores give the same mask.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Pattern:
    """At most `n` non-zero weights in every `m` consecutive inputs of a column; anywhere when `m` is 0.

    With `by_column` they may stand anywhere in a column, but every column keeps as many as the others. With `width`
    above 1 they come in blocks of so many columns of one row.
    """

    n: int = 0
    m: int = 0
    by_column: bool = False
    width: int = 1

    def __post_init__(self) -> None:
        if self.by_column and self.m:
            raise ValueError("a pattern N:M gives every column as many weights already")
        if self.m and not 0 < self.n < self.m:
            raise ValueError(f"a pattern N:M needs 0 < N < M, got {self.n}:{self.m}")
        if self.width < 1 or (self.width > 1 and (self.m or self.by_column)):
            raise ValueError("a pattern of N columns by 1 row needs N >= 1, and nothing else")
        if not self.m and self.n:
            raise ValueError("a pattern without blocks has no N")

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """`unstructured`, `per-column`, `N:M` such as `16:64`, or `Nx1` such as `4x1`.

        Raises:
            ValueError: anything else.
        """
        if text in ("unstructured", "per-column"):
            return cls(by_column=text == "per-column")
        if (match := re.fullmatch(r"(\d+)x1", text)) and int(match[1]) > 1:
            return cls(width=int(match[1]))
        if (match := re.fullmatch(r"(\d+):(\d+)", text)) is None or match[2] == "0":
            known = "`unstructured`, `per-column`, `N:M` such as `16:64`, or `Nx1` such as `4x1`"
            raise ValueError(f"a pattern is {known}, got `{text}`")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        if self.m:
            return f"{self.n}:{self.m}"
        if self.width > 1:
            return f"{self.width}x1"
        return "per-column" if self.by_column else "unstructured"

    @property
    def oriented(self) -> bool:
        """Whether it matters which dimension of a matrix its columns are."""
        return self.m > 0 or self.by_column or self.width > 1

    @property
    def sparsity(self) -> float | None:
        """Share of zeros that the pattern implies; None if it implies none."""
        return 1 - self.n / self.m if self.m else None

    def project(self, scores: Scores, sparsity: float = 0.0) -> Mask:
        """The mask [K, N] of weights to keep: those of the highest `scores` [K, N] that the pattern allows.

        Args:
            scores: importance of each weight, not negative, no NaN; blocks count the sum of their squares.
            sparsity: share of zeros, 0 to 1; not used by N:M, which implies its own.

        Raises:
            ValueError: `scores` is no matrix or holds a NaN, or `sparsity` is not in [0, 1].
        """
        if scores.ndim != 2 or np.isnan(scores).any():
            raise ValueError("scores must be a matrix without NaN")
        if self.m:
            return self._project_blocks(scores)
        if not 0 <= sparsity <= 1:
            raise ValueError(f"sparsity must be in [0, 1], got {sparsity}")
        if self.by_column:
            keep = len(scores) - round(sparsity * len(scores))
            return np.asarray(_highest(scores[None], keep)[0])
        if self.width > 1 and scores.size:
            starts = np.arange(0, scores.shape[1], self.width)
            blocks = np.add.reduceat(np.square(scores, dtype=np.float64), starts, axis=1)
            return np.repeat(_flat(blocks, sparsity), self.width, axis=1)[:, : scores.shape[1]]
        return _flat(scores, sparsity)

    def satisfied(self, mask: Mask) -> bool:
        """Whether the non-zeros in `mask` [K, N] are allowed."""
        if not self.m:
            return True
        return bool((block_counts(mask, self.m) <= self._allowed(len(mask))[:, None]).all())

    def _project_blocks(self, scores: Scores) -> Mask:
        k, columns = scores.shape
        full = k - k % self.m
        blocks = scores[:full].reshape(-1, self.m, columns)
        parts = [_highest(blocks, self.n).reshape(full, columns)]
        if full < k:
            parts.append(_highest(scores[None, full:], int(self._allowed(k)[-1]))[0])
        return np.concatenate(parts)

    def _allowed(self, k: int) -> npt.NDArray[np.int64]:
        """Non-zeros allowed in each block of a column of `k` rows."""
        lengths = np.minimum(self.m, k - np.arange(0, k, self.m))
        return -(-self.n * lengths // self.m)


def tightest(weight: npt.NDArray[Any], m: int = 64) -> Pattern | None:
    """The pattern N:m of the smallest N that `weight` [K, N] satisfies; None if only a full block will do."""
    return tightest_of(block_counts(weight, m), len(weight), m)


def tightest_of(counts: npt.NDArray[np.int64], k: int, m: int) -> Pattern | None:
    """The same for `block_counts` of K rows."""
    if not counts.size:
        return None
    lengths = np.minimum(m, k - np.arange(0, k, m))
    # ceil(N * L / m) >= c holds from N = floor((c - 1) * m / L) + 1 on.
    needed = np.where(counts > 0, (counts - 1) * m // lengths[:, None] + 1, 1)
    n = int(needed.max())
    return Pattern(n, m) if n < m else None


def _flat(scores: Scores, sparsity: float) -> Mask:
    """The highest of all scores [K, N]."""
    keep = scores.size - round(sparsity * scores.size)
    return _highest(scores.reshape(1, -1, 1), keep).reshape(scores.shape)


def block_counts(weight: npt.NDArray[Any], m: int) -> npt.NDArray[np.int64]:
    """Non-zeros [ceil(K/m), N] in each block of each column of `weight` [K, N]."""
    starts = range(0, len(weight), m)
    counts = np.zeros((len(starts), weight.shape[1]), np.int64)
    small = np.uint8 if m < 2**8 else np.int64  # sums of bytes are ten times as fast
    for row, start in zip(counts, starts, strict=True):  # np.add.reduceat would make int64 of the whole mask first
        row[:] = (weight[start : start + m] != 0).view(np.uint8).sum(axis=0, dtype=small)
    return counts


def _highest(scores: Scores, keep: int) -> Mask:
    """Of scores [B, L, N] the `keep` highest along L; the earlier of equals."""
    length = scores.shape[1]
    if keep >= length or not scores.size:
        return np.ones(scores.shape, bool)
    if keep == 0:
        return np.zeros(scores.shape, bool)
    bound = np.partition(scores, length - keep, axis=1)[:, length - keep, None]
    above = scores > bound
    ties = scores == bound
    room = keep - above.sum(axis=1, keepdims=True)
    return np.asarray(above | (ties & (np.cumsum(ties, axis=1) <= room)))
