"""Sparse networks in an `.npz` of plain arrays: what the reference implementations keep in pickles, made safe to read.

SET's reference implementations hold a network as the dictionaries `w` and `b` of SciPy matrices and vectors, numbered
from 1, and keep it by pickling them. A pickle runs whatever code it holds when it is read, so none is read here: where
it is trusted, `save_npz` writes the same numbers as arrays. Of layer i, from 1 on:

    w{i}.data, w{i}.indices, w{i}.indptr    W_i [inputs, outputs] in compressed sparse rows
    w{i}.shape                              int64 [2]
    b{i}                                    [outputs]; left out for no bias
    activation{i}                           text, as in `from_scipy`; left out for none
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import scipy.sparse

from sparsify.api.networks import Layer, from_scipy
from sparsify.data import archives
from sparsify.errors import InputError
from sparsify.files import replacing

_PARTS = ("data", "indices", "indptr", "shape")
_HINT = "write it with sparsify.save_npz"


def save_npz(layers: Iterable[Layer], path: str | Path) -> None:
    """Write (W, bias, activation) of each layer, as `from_scipy` takes them; the module says how.

    Raises:
        UsageError: `path` cannot be written.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for number, (weight, bias, activation) in enumerate(layers, start=1):
        matrix = scipy.sparse.csr_array(weight)
        parts = (matrix.data, matrix.indices, matrix.indptr, np.array(matrix.shape, np.int64))
        arrays |= {f"w{number}.{name}": part for name, part in zip(_PARTS, parts, strict=True)}
        if bias is not None:
            arrays[f"b{number}"] = np.asarray(bias)
        if activation is not None:
            arrays[f"activation{number}"] = np.array(activation)
    path = Path(path)
    with replacing(path) as folder, (folder / path.name).open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def from_npz(path: str | Path) -> ir.Model:
    """The network of an `.npz` as `save_npz` writes it, as `from_scipy` would build it; never made dense.

    Raises:
        InputError: no such file, it is not an `.npz`, holds Python objects, lacks an array of a layer or has one too
            many, or its arrays are not those of a sparse matrix.
    """
    arrays = archives.read(Path(path))
    return from_scipy(list(_layers(arrays, str(path))))


def _layers(arrays: Mapping[str, npt.NDArray[Any]], where: str) -> Iterator[Layer]:
    left, number = set(arrays), 1
    while f"w{number}.data" in left or number == 1:
        names = {name: f"w{number}.{name}" for name in _PARTS}
        if missing := sorted(set(names.values()) - left):
            raise InputError(f"there is no array `{missing[0]}`", where=where, hint=_HINT)
        matrix = _matrix({name: arrays[key] for name, key in names.items()}, where, f"w{number}")
        bias, activation = arrays.get(f"b{number}"), arrays.get(f"activation{number}")
        yield matrix, bias, None if activation is None else str(activation)
        left -= {*names.values(), f"b{number}", f"activation{number}"}
        number += 1
    if left:
        raise InputError(f"`{min(left)}` belongs to no layer; layers are numbered from 1", where=where, hint=_HINT)


def _matrix(parts: Mapping[str, npt.NDArray[Any]], where: str, name: str) -> scipy.sparse.csr_array:
    """The matrix of `_PARTS`, every index checked: SciPy's own products would read outside of arrays otherwise."""
    shape = parts["shape"]
    try:
        if shape.shape != (2,) or shape.dtype.kind not in "iu" or parts["data"].dtype.kind not in "fiu":
            raise ValueError("its shape is not two whole numbers, or its values are no numbers")
        if any(parts[name].dtype.kind not in "iu" for name in ("indices", "indptr")):
            raise ValueError("its indices are no whole numbers")
        if parts["indptr"].size and (np.diff(parts["indptr"].astype(np.int64)) < 0).any():
            raise ValueError("its rows end before they begin")  # SciPy looks at that only where there are non-zeros
        matrix = scipy.sparse.csr_array(
            (parts["data"].astype(np.float32, copy=False), parts["indices"], parts["indptr"]),
            shape=(int(shape[0]), int(shape[1])),
        )
        matrix.check_format(full_check=True)
    except (ValueError, TypeError, IndexError, OverflowError, AttributeError) as error:
        raise InputError(f"`{name}` is no sparse matrix: {error}", where=where, hint=_HINT) from error
    return matrix
