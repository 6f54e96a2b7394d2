"""Models from outside: read, held against the limits, and tried where a crash does no harm."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from sparsify import contained, coo, modelio
from sparsify.errors import InputError
from sparsify.modelio import Source


def load(model: Source, *, runs: bool = True) -> ir.Model:
    """`model` as `modelio.load` gives it; one from a file also was tried in a process of its own.

    Args:
        model: in any form.
        runs: the caller has to run it.

    Raises:
        InputError: a model that cannot be used, or that crashes the libraries that it would be used with.
    """
    loaded = modelio.load(model)
    huge = coo.too_large_to_run(loaded)
    if huge is not None and runs:
        raise InputError(
            f"onnxruntime would make the sparse initializer `{huge.name}` {list(huge.proto.dims)} dense, and run "
            "out of memory",
            where=str(model) if isinstance(model, (str, Path)) else "model",
            hint="optimise it with `--passes sparse-fp32`, without data, and go on with the result",
        )
    if isinstance(model, (str, Path)):
        contained.examine(Path(model), modelio.disk_bytes(loaded), opens=huge is None)
    return loaded
