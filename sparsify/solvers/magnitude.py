"""Keep the largest weights.

    mask = pattern.project(|W|),   W' = W * mask

Of all W' under the pattern this one minimises ||W - W'||_F; it says nothing about ||X W - X W'||_F.

Source: Han, Pool, Tran, Dally, "Learning both Weights and Connections for Efficient Neural Networks", 2015.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparsify.patterns import Mask, Pattern


def prune(
    weight: npt.NDArray[np.float32], pattern: Pattern, sparsity: float = 0.0
) -> tuple[Mask, npt.NDArray[np.float32]]:
    """The mask [K, N] of what `pattern` keeps of W float32 [K, N], and W' float32 [K, N] with zeros elsewhere.

    Raises:
        ValueError: W holds a NaN, or `sparsity` is not in [0, 1].
    """
    mask = pattern.project(np.abs(weight), sparsity)
    return mask, np.where(mask, weight, np.float32(0))
