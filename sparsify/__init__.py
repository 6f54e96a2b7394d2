"""Sparsify makes ONNX models faster in ordinary onnxruntime, and measures what that does to their answers."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsify.api import (
        InferenceSession,
        Result,
        audit,
        bisect,
        from_npz,
        from_scipy,
        inspect,
        optimize,
        register,
        save_npz,
    )

__all__ = [
    "InferenceSession",
    "Result",
    "__version__",
    "audit",
    "bisect",
    "from_npz",
    "from_scipy",
    "inspect",
    "optimize",
    "register",
    "save_npz",
]

try:
    __version__ = version("sparsify-onnx")
except PackageNotFoundError:  # used from a checkout that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    """Import the API when it is first used: `import sparsify.kernels` alone stays light."""
    if name in __all__:
        return getattr(import_module("sparsify.api"), name)
    raise AttributeError(f"module 'sparsify' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """Keeps the function `sparsify.audit` from being hidden by the module of that name.

    Importing a submodule sets it as an attribute of its package. `from sparsify.audit import ...` works all the same.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name in __all__ and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
