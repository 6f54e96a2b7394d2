"""Keep the largest weights.

    mask = pattern.project(|W|),   W' = W * mask

Of all W' under the pattern this one minimises ||W - W'||_F; it says nothing about ||X W - X W'||_F.

Source: Han, Pool, Tran, Dally, "Learning both Weights and Connections for Efficient Neural Networks", 2015.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparsify.patterns import Mask, Pattern

_PART = 2**23  # weights at a time: what is computed on the way takes six times their memory


def prune(
    weight: npt.NDArray[np.float32], pattern: Pattern, sparsity: float = 0.0
) -> tuple[Mask, npt.NDArray[np.float32]]:
    """The mask [K, N] of what `pattern` keeps of W float32 [K, N], and W' float32 [K, N] with zeros elsewhere.

    Raises:
        ValueError: W holds a NaN, or `sparsity` is not in [0, 1].
    """
    k, n = weight.shape
    apart = bool(pattern.m) or pattern.by_column
    width = max(_PART // max(k, 1), 1) if apart else max(n, 1)
    mask, pruned = np.zeros((k, n), bool), np.zeros((k, n), np.float32)
    for part in (slice(at, at + width) for at in range(0, n, width)):
        mask[:, part] = pattern.project(np.abs(weight[:, part]), sparsity)
        np.copyto(pruned[:, part], weight[:, part], where=mask[:, part])
    return mask, pruned
