"""MKL's sparse product, from an environment of its own (made once in benchmarks/results): compared with, not required.

The inspector-executor interface of oneMKL's C reference: a matrix is created once, told how often and how it will be
multiplied, optimised, and then multiplied. One thread. MKL dispatches by CPU, and need not do its best on AMD's.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from benchmarks.peer import environment

PIN = ("mkl==2026.2.0",)
_GENERAL, _NON_TRANSPOSE, _ROW_MAJOR, _COLUMN_MAJOR = 20, 10, 101, 102
_CALLS = 1000  # how many products MKL is told to expect

Matrix = npt.NDArray[np.float32]


class _Descriptor(ctypes.Structure):
    """struct matrix_descr; mode and diagonal are not looked at for general matrices."""

    _fields_ = (("type", ctypes.c_int), ("mode", ctypes.c_int), ("diag", ctypes.c_int))


class Product:
    """Y = W^T X for W^T [N, K] in CSR and X [K, columns], both row-major (or X and Y column-major)."""

    def __init__(self, folder: Path, weight: scipy.sparse.csr_array, columns: int, *, column_major: bool) -> None:
        self._mkl = _library(folder)
        self._weight = weight  # its arrays must live on
        self._layout = _COLUMN_MAJOR if column_major else _ROW_MAJOR
        self._descriptor = _Descriptor(_GENERAL, 40, 50)
        self._handle = ctypes.c_void_p()
        n, k = weight.shape
        starts = weight.indptr.ctypes.data
        self._check(
            self._mkl.mkl_sparse_s_create_csr(
                ctypes.byref(self._handle),
                0,
                n,
                k,
                ctypes.c_void_p(starts),
                ctypes.c_void_p(starts + 4),
                ctypes.c_void_p(weight.indices.ctypes.data),
                ctypes.c_void_p(weight.data.ctypes.data),
            )
        )
        self._check(
            self._mkl.mkl_sparse_set_mm_hint(
                self._handle, _NON_TRANSPOSE, self._descriptor, self._layout, columns, _CALLS
            )
        )
        self._check(self._mkl.mkl_sparse_optimize(self._handle))

    def __call__(self, x: Matrix) -> Matrix:
        """X [K, columns] -> Y [N, columns]; column-major: X [columns, K] -> Y [columns, N]."""
        n, k = self._weight.shape
        column_major = self._layout == _COLUMN_MAJOR
        columns = x.shape[0] if column_major else x.shape[1]
        y = np.empty((columns, n) if column_major else (n, columns), np.float32)
        self._check(
            self._mkl.mkl_sparse_s_mm(
                _NON_TRANSPOSE,
                ctypes.c_float(1),
                self._handle,
                self._descriptor,
                self._layout,
                ctypes.c_void_p(x.ctypes.data),
                columns,
                k if column_major else columns,
                ctypes.c_float(0),
                ctypes.c_void_p(y.ctypes.data),
                n if column_major else columns,
            )
        )
        return y

    @staticmethod
    def _check(status: int) -> None:
        if status != 0:
            raise RuntimeError(f"MKL refused with status {status}")


def _library(folder: Path) -> Any:
    os.environ["MKL_THREADING_LAYER"] = "SEQUENTIAL"
    environment(folder / "mkl", PIN)
    return ctypes.CDLL(str(next((folder / "mkl" / "lib").glob("libmkl_rt.so*"))))
