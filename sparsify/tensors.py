"""How many bytes a tensor declares, and how many it holds: read off the message, before anything is allocated."""

from __future__ import annotations

import math

import onnx

from sparsify.errors import InputError

_T = onnx.TensorProto
# Bits of an element, by the name of its type: those that this onnx knows. A complex number is two floats.
_BITS = {
    "FLOAT": 32, "UINT8": 8, "INT8": 8, "UINT16": 16, "INT16": 16, "INT32": 32, "INT64": 64, "BOOL": 8, "FLOAT16": 16,
    "DOUBLE": 64, "UINT32": 32, "UINT64": 64, "COMPLEX64": 64, "COMPLEX128": 128, "BFLOAT16": 16, "FLOAT8E4M3FN": 8,
    "FLOAT8E4M3FNUZ": 8, "FLOAT8E5M2": 8, "FLOAT8E5M2FNUZ": 8, "FLOAT8E8M0": 8, "UINT4": 4, "INT4": 4,
    "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2,
}  # fmt: skip
_BITS_OF = {number: _BITS[name] for name, number in _T.DataType.items() if name in _BITS}


def count(tensor: onnx.TensorProto) -> int:
    """Elements that the shape of `tensor` declares; of any size, nothing is allocated."""
    return math.prod(tensor.dims)


def nbytes(tensor: onnx.TensorProto) -> int:
    """Bytes of the data of `tensor` as shape and type declare it; 0 for strings and for types unknown here."""
    return -(-count(tensor) * _BITS_OF.get(tensor.data_type, 0) // 8)


def check(tensor: onnx.TensorProto, where: str) -> None:
    """Hold the data of a tensor against its shape, if it is inside the message.

    Raises:
        InputError: a negative dimension, or more or less data than shape and type declare.
    """
    if any(dim < 0 for dim in tensor.dims):
        raise InputError(f"tensor `{tensor.name}` has a negative dimension in {list(tensor.dims)}", where=where)
    if tensor.data_location == _T.EXTERNAL:
        return
    bits = _BITS_OF.get(tensor.data_type)
    if bits is None and tensor.data_type != _T.STRING:
        return  # a type of a later onnx: nothing of ours looks into it
    elements = count(tensor)
    if tensor.HasField("raw_data"):
        declared, held = nbytes(tensor), len(tensor.raw_data)
    else:
        declared, held = _declared_fields(tensor, elements), _held_fields(tensor)
    if declared != held:
        raise InputError(
            f"tensor `{tensor.name}` declares the shape {list(tensor.dims)} and does not hold the data for it",
            where=where,
            hint="export or download the model again",
        )


def _declared_fields(tensor: onnx.TensorProto, elements: int) -> int:
    """Numbers that the field of the tensor's type holds for `elements`; fewer where several share one."""
    if tensor.data_type in (_T.COMPLEX64, _T.COMPLEX128):
        return 2 * elements
    bits = _BITS_OF.get(tensor.data_type, 8)
    return -(-elements * bits // 8) if bits < 8 else elements


def _held_fields(tensor: onnx.TensorProto) -> int:
    # Only one of them is filled in; which one follows from the type.
    return max(
        len(tensor.float_data), len(tensor.int32_data), len(tensor.int64_data), len(tensor.double_data),
        len(tensor.uint64_data), len(tensor.string_data),
    )  # fmt: skip
