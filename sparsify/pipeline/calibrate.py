"""Calibration data, put where passes find it."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from sparsify.pruning import FEEDS, Feed


def calibrate(model: ir.Model, feeds: Sequence[Feed]) -> None:
    """Let passes learn from `feeds`; in memory only, never saved."""
    model.meta[FEEDS] = feeds


def forget(model: ir.Model) -> None:
    """Passes that come now learn nothing."""
    model.meta.pop(FEEDS, None)
