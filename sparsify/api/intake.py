"""Models from outside: read, held against the limits, and tried where a crash does no harm."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from sparsify import contained, modelio
from sparsify.modelio import Source


def load(model: Source) -> ir.Model:
    """`model` as `modelio.load` gives it; one from a file also was tried in a process of its own.

    Raises:
        InputError: a model that cannot be used, or that crashes the libraries that it would be used with.
    """
    loaded = modelio.load(model)
    if isinstance(model, (str, Path)):
        contained.examine(Path(model), modelio.disk_bytes(loaded))
    return loaded
