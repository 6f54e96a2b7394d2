"""What one core can do of the instructions that make up a kernel's steps: peak.c, compiled and timed here and now."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from sparsify import kernels
from sparsify.kernels.native import Kernel
from sparsify.kernels.native import kernels as native_kernels


def chosen(format_: str) -> Kernel:
    """The kernel that a session takes for a format (fp32, int8, bf16)."""
    paths = kernels.isas()
    within = paths[paths.index(kernels.isa() or "scalar") :]
    return next(k for k in native_kernels() if k.format == format_ and k.isa in within)


@cache
def peak(format_: str, *, dense: bool = False) -> float | None:
    """Billions of operations a second on one core, of registers only; None where there is no measurement for the path.

    Steps of int8 and bf16 kernels include the permute unless `dense`; those of others are an FMA.
    """
    isa = chosen(format_).isa
    step = "dense" if dense else "sparse"
    if format_ == "fp32" or (format_ == "bf16" and isa != "avx512_bf16"):
        isa, step = isa.split("_")[0], "fma"
    function = getattr(_library(), f"peak_{isa}_{step}", None)
    if function is None:
        return None
    function.restype = ctypes.c_double
    return float(function())


@cache
def _library() -> ctypes.CDLL | None:
    if shutil.which("cc") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        source = Path(__file__).with_name("peak.c")
        done = subprocess.run(
            ["cc", "-O2", "-shared", "-fPIC", source, "-o", library], capture_output=True, check=False
        )
        return ctypes.CDLL(str(library)) if done.returncode == 0 else None
