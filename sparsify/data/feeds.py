"""What a feed is, what a model says of its inputs, and whether the two fit.

A feed is what one run of a model takes: an array for each input. A sample is what statistics count:

* Where every input has a leading dimension and it is the same for all of them (the batch), each index
  of it is a sample. Dimensions are the same when the feed's arrays agree, and the model does not say
  otherwise: two different symbols or two different numbers are two dimensions.
* Else the feed is one sample.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy.typing as npt

from sparsify.errors import InputError

Array: TypeAlias = npt.NDArray[Any]
Feed: TypeAlias = dict[str, Array]

_ONNXRUNTIME_TYPES = {"float": "float32", "double": "float64", "string": "str"}


class FileFeed(Feed):
    """A feed that remembers where it came from, so that errors and reports can name it.

    Attributes:
        source: the file, or which part of it.
        origins: of each sample; empty where the source says enough.
    """

    def __init__(self, arrays: Mapping[str, Array], source: Path | str, origins: Sequence[str] = ()) -> None:
        super().__init__(arrays)
        self.source, self.origins = source, tuple(origins)


def origins(feed: Mapping[str, Array], count: int) -> list[str | None]:
    """Where each of a feed's `count` samples came from, as far as it is known."""
    known: tuple[str, ...] = getattr(feed, "origins", ())
    if len(known) == count:
        return list(known)
    source = getattr(feed, "source", None)
    return [None if source is None else str(source)] * count


@dataclass(frozen=True)
class TensorSpec:
    """What a model says of one of its inputs.

    Attributes:
        name: of the input.
        dtype: NumPy's name of the element type (`str` for strings); None when the model does not say.
        shape: a number, a symbol or None (unknown) a dimension; None when even the rank is unknown.
    """

    name: str
    dtype: str | None
    shape: tuple[int | str | None, ...] | None

    @classmethod
    def of(cls, value: Any) -> TensorSpec:
        """From onnxruntime's `NodeArg`, from an `onnx_ir.Value`, or from a `TensorSpec`."""
        if isinstance(value, TensorSpec):
            return value
        if isinstance(kind := getattr(value, "type", None), str):  # NodeArg
            element = kind.removeprefix("tensor(").removesuffix(")")
            return cls(value.name, _ONNXRUNTIME_TYPES.get(element, element), tuple(map(_dimension, value.shape)))
        dims = None if value.shape is None else tuple(map(_dimension, (getattr(d, "value", d) for d in value.shape)))
        if value.dtype is None or value.dtype.name == "UNDEFINED":
            return cls(value.name, None, dims)
        return cls(value.name, "str" if value.dtype.name == "STRING" else value.dtype.numpy().name, dims)

    def __str__(self) -> str:
        dims = "?" if self.shape is None else ", ".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.dtype or 'any type'} [{dims}]"


def specs_of(inputs: Iterable[Any]) -> tuple[TensorSpec, ...]:
    """The inputs that a feed must give: those of a session, or of a graph less its initializers."""
    return tuple(TensorSpec.of(i) for i in inputs if not getattr(i, "is_initializer", lambda: False)())


def _dimension(size: int | str | None) -> int | str | None:
    """A dimension of a declared shape; some exporters write -1 for one that is unknown."""
    return None if isinstance(size, int) and size < 0 else size


def check(feeds: Sequence[Feed], inputs: Iterable[Any]) -> None:
    """Hold every feed against a model's inputs. Keys that the model does not take are ignored.

    Args:
        feeds: at least one.
        inputs: of a session (`get_inputs()`), of an `onnx_ir` graph, or `TensorSpec`s.

    Raises:
        InputError: no feed at all, a missing key, a wrong type, rank or dimension, or a symbolic
            dimension that has two sizes in one feed.
    """
    if not feeds:
        raise InputError("there are no feeds", hint="give at least one `.npz`")
    specs = specs_of(inputs)
    for index, feed in enumerate(feeds):
        where = str(getattr(feed, "source", f"feed {index}"))
        symbols: dict[str, tuple[int, str]] = {}
        for spec in specs:
            _check_array(feed, spec, where)
            _check_symbols(feed[spec.name], spec, symbols, where)


def rows(feed: Mapping[str, Array], inputs: Iterable[Any] | None = None) -> int | None:
    """Number of samples along the batch dimension of `feed`; None when it has none and is one sample.

    Args:
        feed: arrays by input name.
        inputs: as in `check`; without them only the arrays are looked at.
    """
    arrays: Iterable[Array] = feed.values()
    if inputs is not None:
        specs = specs_of(inputs)
        leading = {spec.shape[0] for spec in specs if spec.shape}
        if len(leading - {None}) > 1:
            return None
        arrays = [feed[spec.name] for spec in specs]
    lengths = {a.shape[0] if a.ndim else None for a in arrays}
    return lengths.pop() if len(lengths) == 1 else None


def _check_array(feed: Feed, spec: TensorSpec, where: str) -> None:
    if spec.name not in feed:
        near = difflib.get_close_matches(spec.name, feed, 1)
        raise InputError(
            f"input `{spec.name}` is missing, expected {spec}",
            where=where,
            hint=f"did you mean `{near[0]}`?" if near else f"keys here: {', '.join(feed) or 'none'}",
        )
    array = feed[spec.name]
    if not _same_type(array, spec.dtype):
        raise InputError(
            f"input `{spec.name}` is {array.dtype}, expected {spec}",
            where=where,
            hint=f'convert it with .astype("{spec.dtype}") before saving',
        )
    if spec.shape is None:
        return
    fits = len(spec.shape) == array.ndim and all(
        not isinstance(want, int) or want == got for want, got in zip(spec.shape, array.shape, strict=False)
    )
    if not fits:
        raise InputError(
            f"input `{spec.name}` has shape {list(array.shape)}, expected {spec}",
            where=where,
            hint="numbers must match, symbols may be any size",
        )


def _same_type(array: Array, dtype: str | None) -> bool:
    if dtype == "str":
        return array.dtype.kind in "UO"
    return dtype is None or array.dtype.name == dtype


def _check_symbols(array: Array, spec: TensorSpec, symbols: dict[str, tuple[int, str]], where: str) -> None:
    for symbol, size in zip(spec.shape or (), array.shape, strict=False):
        if not isinstance(symbol, str):
            continue
        known, other = symbols.setdefault(symbol, (size, spec.name))
        if known != size:
            raise InputError(
                f"dimension `{symbol}` is {known} in `{other}` but {size} in `{spec.name}`",
                where=where,
                hint=f"all inputs of one feed must agree on `{symbol}`",
            )
