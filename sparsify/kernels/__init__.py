"""The native library: where it is, what it can run on this CPU, and how a session gets it.

`SPARSIFY_ISA` forces a lower ISA path (`scalar`, `avx2`, ...; see `isas()`), for tests and comparisons. On x86 the
paths are avx512_vbmi, avx512_vnni, avx512, avx2_vnni and avx2, on 64-bit Arm neon_dotprod and neon: docs/kernels.md.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sparsify.errors import UsageError

if TYPE_CHECKING:
    import onnxruntime

ISA_VARIABLE = "SPARSIFY_ISA"
_REGISTERED = "sparsify.registered"  # an entry of SessionOptions; onnxruntime ignores those that it does not know
_NAMES = ("libsparsify_kernels.so", "libsparsify_kernels.dylib", "sparsify_kernels.dll")


@cache
def library_path() -> Path | None:
    """Path of the native library; None when it was not built for this platform."""
    # In an editable install the library stands beside another entry of __path__ than this file.
    candidates = (Path(folder) / name for folder in __path__ for name in _NAMES)
    return next((p for p in candidates if p.exists()), None)


@cache
def library() -> ctypes.CDLL | None:
    """The library's C interface (see contract.h); None when it was not built."""
    if (path := library_path()) is None:
        return None
    found = ctypes.CDLL(str(path))
    found.sparsify_isa.restype = ctypes.c_char_p
    found.sparsify_isas.restype = ctypes.c_char_p
    return found


def isas() -> tuple[str, ...]:
    """ISA paths that this CPU can run, fastest first; empty without the library. `scalar` is always last."""
    if (found := library()) is None:
        return ()
    return tuple(found.sparsify_isas().decode().split())


def isa() -> str | None:
    """The ISA path that sessions will run: the fastest, or the one forced; None without the library.

    Raises:
        UsageError: the forced path is unknown or this CPU cannot run it.
    """
    forced = os.environ.get(ISA_VARIABLE)
    if not (possible := isas()):
        return None
    if forced and forced not in possible:
        raise UsageError(
            f"this CPU has no kernels for `{forced}`", where=ISA_VARIABLE, hint=f"it can run {', '.join(possible)}"
        )
    return forced or possible[0]


def register(options: onnxruntime.SessionOptions) -> bool:
    """Let a session with `options` run `ai.sparsify` operators on the native kernels.

    Nothing is registered, and False returned, where only the scalar reference could run and it was not
    forced: the functions in the model, on onnxruntime's own kernels, are faster than it. Every other path has
    fp32 and int8 kernels of its own. Options that have the kernels already are left as they are: onnxruntime
    refuses a domain that is registered twice.
    """
    chosen = isa()
    if chosen is None or (chosen == "scalar" and not os.environ.get(ISA_VARIABLE)):
        return False
    if not _has_entry(options, _REGISTERED):
        options.register_custom_ops_library(str(library_path()))
        options.add_session_config_entry(_REGISTERED, "1")
    return True


def _has_entry(options: onnxruntime.SessionOptions, key: str) -> bool:
    try:
        return bool(options.get_session_config_entry(key))
    except RuntimeError:  # how onnxruntime says that there is none
        return False
