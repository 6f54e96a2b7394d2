"""Reading the safetensors format: one JSON header, then the tensors' bytes.

    u64 little endian: length of the header | header: {name: {dtype, shape, data_offsets}} | data

Source: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_TYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32}


def read(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors in `path` by name, each a copy of its own.

    Raises:
        ValueError: a tensor's type is none that numpy has, or its bytes do not fit its shape.
    """
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header: dict[str, dict[str, Any]] = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    return {name: _tensor(data, 8 + length, name, entry) for name, entry in header.items()}


def _tensor(data: bytes, start: int, name: str, entry: dict[str, Any]) -> npt.NDArray[Any]:
    if entry["dtype"] not in _TYPES:
        raise ValueError(f"`{name}` is {entry['dtype']}, which is not read here")
    first, last = entry["data_offsets"]
    flat = np.frombuffer(data[start + first : start + last], _TYPES[entry["dtype"]])
    return flat.reshape(entry["shape"]).copy()
