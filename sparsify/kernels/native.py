"""The kernels one by one, without onnxruntime: for their tests, their benchmarks and `sparsify doctor`."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsify.formats import EncodedWeight, Encoding
from sparsify.kernels import isas, library

_ENCODINGS = (Encoding.BITMASK, Encoding.DELTA, Encoding.COLUMNS, Encoding.ROWS)
_ACTIVATIONS = ("", "Relu", "Gelu", "GeluTanh", "Silu", "Sigmoid", "Tanh")
_MESSAGE_BYTES = 512


@dataclass(frozen=True)
class Kernel:
    """A line of kernels.inc: its name, format and the lowest ISA path that can run it.

    Formats: fp32, int8, bf16, columns, rows, rows_bf16, rows_int8, and quantize, which is no product.
    """

    name: str
    format: str
    isa: str


def kernels() -> tuple[Kernel, ...]:
    """Every kernel that this CPU can run, fastest of a format first; empty without the library."""
    if (found := library()) is None:
        return ()
    found.sparsify_kernels.restype = ctypes.c_char_p
    listed = (Kernel(*line.split()) for line in found.sparsify_kernels().decode().splitlines())
    return tuple(k for k in listed if k.isa in isas())


@dataclass(frozen=True)
class Quantized:
    """Rows as an int8 kernel multiplies them: q uint8 [M, K], scale float32 [M], zero point uint8 [M]."""

    q: npt.NDArray[np.uint8]
    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, kernel: str, x: npt.NDArray[np.float32]) -> Quantized:
        """X float32 [M, K], K >= 1, quantised by `kernel`, on the calling thread.

        Raises:
            ValueError: this CPU has no such kernel.
        """
        x = np.ascontiguousarray(x, np.float32)
        made = cls(np.empty(x.shape, np.uint8), np.empty(len(x), np.float32), np.empty(len(x), np.uint8))
        outputs = (_pointer(made.q), _pointer(made.scale), _pointer(made.zero_point))
        if not _typed_library().sparsify_quantize(kernel.encode(), _pointer(x), *x.shape, *outputs):
            raise ValueError(f"no kernel `{kernel}` that quantises on this CPU")
        return made


class Product:
    """W [K, N] packed for one kernel. Use as a context manager: the packed weights are the library's memory.

    Args:
        kernel: name of a kernel.
        weight: float32 values for fp32, columns and rows kernels, int8 for int8 and rows_int8, bfloat16 for the others.
        bias: float32 [N].
        scale: float32 [N] for int8 values, else None.
        activation: one of `ops.Activation`.

    Raises:
        ValueError: the encoding is not that of a matrix, or this CPU has no such kernel; says which.
    """

    def __init__(
        self,
        kernel: str,
        weight: EncodedWeight,
        bias: npt.NDArray[np.float32],
        scale: npt.NDArray[np.float32] | None = None,
        activation: str = "",
    ) -> None:
        self._library = _typed_library()
        self.shape = weight.shape
        message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        positions, high, *_ = (*weight.positions, None, None)
        self._values = weight.values  # kernels of columns and rows read them where they are
        self._handle = self._library.sparsify_pack(
            kernel.encode(),
            _ENCODINGS.index(weight.encoding),
            *weight.shape,
            _pointer(high),
            0 if high is None else high.size,
            _pointer(positions),
            0 if positions is None else positions.size,
            1 if positions is None else positions.itemsize,
            _pointer(weight.values),
            weight.values.size,
            _pointer(scale),
            _pointer(bias),
            _ACTIVATIONS.index(activation),
            message,
            _MESSAGE_BYTES,
        )
        if not self._handle:
            raise ValueError(message.value.decode())

    def run(
        self, x: npt.NDArray[np.float32] | Quantized, residual: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """X float32 [M, K] -> Y float32 [M, N], plus the residual float32 [M, N], on the calling thread.

        Raises:
            ValueError: X or a residual of another shape; quantised rows for a kernel of another format than int8.
        """
        given = x.q if isinstance(x, Quantized) else x
        if given.shape[1:] != self.shape[:1]:
            raise ValueError(f"X has shape {list(given.shape)}, W {list(self.shape)}")
        rows = len(given)
        y = np.empty((rows, self.shape[1]), np.float32)
        if residual is not None:
            residual = np.ascontiguousarray(residual, np.float32)
            if residual.shape != y.shape:
                raise ValueError(f"the residual has shape {list(residual.shape)}, the product {list(y.shape)}")
        if isinstance(x, Quantized):
            inputs = (_pointer(x.q), _pointer(x.scale), _pointer(x.zero_point))
            if not self._library.sparsify_run_quantized(self._handle, *inputs, rows, _pointer(residual), _pointer(y)):
                raise ValueError("only int8 kernels read quantised rows")
            return y
        x = np.ascontiguousarray(x, np.float32)
        self._library.sparsify_run(self._handle, _pointer(x), rows, _pointer(residual), _pointer(y))
        return y

    @property
    def nbytes(self) -> int:
        """Bytes of packed weights."""
        return int(self._library.sparsify_bytes(self._handle))

    def __enter__(self) -> Product:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._library.sparsify_release(self._handle)
        self._handle = None


def _typed_library() -> ctypes.CDLL:
    found = library()
    if found is None:
        raise ValueError("the native library was not built")
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    found.sparsify_pack.restype = pointer
    found.sparsify_pack.argtypes = [
        ctypes.c_char_p, ctypes.c_int, size, size,  # kernel, encoding, shape
        pointer, size, pointer, size, ctypes.c_int, pointer, size,  # high parts, positions, values
        pointer, pointer, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t,  # scale, bias, activation, message
    ]  # fmt: skip
    found.sparsify_run.argtypes = [pointer, pointer, size, pointer, pointer]
    found.sparsify_run.restype = None
    found.sparsify_run_quantized.argtypes = [pointer, pointer, pointer, pointer, size, pointer, pointer]
    found.sparsify_run_quantized.restype = ctypes.c_bool
    found.sparsify_quantize.argtypes = [ctypes.c_char_p, pointer, size, size, pointer, pointer, pointer]
    found.sparsify_quantize.restype = ctypes.c_bool
    found.sparsify_bytes.argtypes = [pointer]
    found.sparsify_bytes.restype = size
    found.sparsify_release.argtypes = [pointer]
    found.sparsify_release.restype = None
    return found


def _pointer(array: npt.NDArray[Any] | None) -> Any:
    return None if array is None else array.ctypes.data
