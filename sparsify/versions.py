"""What the outcome of the mathematics depends on beside its inputs."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import scipy


@cache
def mathematics() -> dict[str, str]:
    """Versions by name.

    Of ours it is a digest of the text: while it is being developed the version stands still and the outcome does not.
    """
    here = Path(__file__).parent
    files = [*sorted((here / "solvers").glob("*.py")), here / "pruning.py", here / "sensitivity.py"]
    return {
        "sparsify": hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:32],
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
