"""Boxes as (x1, y1, x2, y2) along the last axis: intersection over union of box j of base and candidate."""

from __future__ import annotations

import numpy as np

from sparsify.audit.measures.blocks import Block
from sparsify.audit.measures.table import Floats, Sum


def add_boxes(block: Block, found: Floats) -> None:
    """Add to the sums of the block's samples; boxes with an element that is not finite in both are left out."""
    b, c = block.base, block.candidate
    spoilt = block.bad.any(-1)
    counted = np.isfinite(b).all(-1) & ~spoilt
    found[:, Sum.BOXES] += (counted | spoilt).sum(-1)
    found[:, Sum.IOU] += np.where(counted, iou(b, c), 0).sum(-1)


def iou(b: Floats, c: Floats) -> Floats:
    """Intersection over union of boxes [..., 4]; 1 of equal ones, even if they have no area."""
    low, high = np.maximum(b[..., :2], c[..., :2]), np.minimum(b[..., 2:], c[..., 2:])
    both = _area(low, high)
    union = _area(b[..., :2], b[..., 2:]) + _area(c[..., :2], c[..., 2:]) - both
    share = np.divide(both, union, out=np.zeros_like(union), where=union > 0)
    return np.where((b == c).all(-1), 1.0, share)


def _area(low: Floats, high: Floats) -> Floats:
    return np.asarray(np.prod(np.maximum(high - low, 0), axis=-1))
