"""How a picture becomes an array, as a `.toml` or `.json` file says it. Nothing in it is executed.

    size = 256                 # [height, width], or one number for both
    resize = "cover"           # so that the picture covers that size, as small as it can: the shorter side is 256
    crop = 224                 # then cut out of the middle
    channels = "rgb"           # "bgr", "gray"
    layout = "NCHW"            # "NHWC"
    scale = 0.00392156862745098   # 1/255
    mean = [0.485, 0.456, 0.406]
    std = [0.229, 0.224, 0.225]

An element is (pixel * scale - mean) / std, pixel from 0 to 255, computed in float64 and rounded once.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from sparsify.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RESIZES = ("stretch", "cover", "contain", "none")
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1}
LAYOUTS = ("NCHW", "NHWC")
DTYPES = ("float32", "float16", "float64", "uint8", "int8", "int32", "int64")
_MOST_BYTES = 100_000  # of the file: a hundred times what it can say
_MOST_EDGE = 2**14  # pixels
_EXAMPLE = "for example: size = 224, mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225]"


@dataclass(frozen=True)
class Preprocess:
    """What is done to a picture, in this order: convert, resize, crop, channels, arithmetic, layout.

    Attributes:
        size: height and width to resize to.
        resize: `stretch` to the size; `cover` or `contain` it with the picture's own proportions, the latter padded
            with `fill`; `none`.
        interpolation: of resizing, as Pillow names them.
        crop: height and width, out of the middle; the size, if not given, after `cover`.
        fill: 0 to 255, what pads.
        channels: `rgb`, `bgr` or `gray`.
        layout: `NCHW` or `NHWC`.
        scale: of pixels; 1/255 if not given, 1 for integer types.
        mean, std: one number, or one a channel.
        dtype: of the array; the model's if not given.
        input: name of the model's input; its only one if not given.

    Raises:
        UsageError: a value that makes no sense.
    """

    size: tuple[int, int] | None = None
    resize: str = "stretch"
    interpolation: str = "bilinear"
    crop: tuple[int, int] | None = None
    fill: int = 0
    channels: str = "rgb"
    layout: str = "NCHW"
    scale: float | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    dtype: str | None = None
    input: str | None = None

    def __post_init__(self) -> None:
        for key, known in _CHOICES.items():
            if getattr(self, key) not in known and not (key == "dtype" and self.dtype is None):
                _refuse(f"`{key}` is one of {', '.join(known)}, got `{getattr(self, key)}`")
        for key in ("mean", "std"):
            if len(getattr(self, key)) not in (1, CHANNELS[self.channels]):
                _refuse(f"`{key}` has one number, or one for each of the channels `{self.channels}`")
        if self.resize == "none" and self.size is not None:
            _refuse('`size` with `resize = "none"` says nothing', "leave one of them out; `crop` cuts without resizing")
        if self.resize != "none" and self.size is None:
            _refuse("`size` is missing", 'such as size = [224, 224], or resize = "none"')
        if not 0 <= self.fill <= 255:
            _refuse(f"`fill` is from 0 to 255, got {self.fill}")
        if 0 in self.std or not all(map(math.isfinite, (*self.mean, *self.std, self.scale or 0))):
            _refuse("`scale`, `mean` and `std` are finite, and no `std` is 0")


_CHOICES = {
    "resize": RESIZES,
    "interpolation": INTERPOLATIONS,
    "channels": tuple(CHANNELS),
    "layout": LAYOUTS,
    "dtype": DTYPES,
}


def read(path: Path) -> Preprocess:
    """The preprocessing that a file describes.

    Raises:
        UsageError: it cannot be read, is neither TOML nor JSON, or says what means nothing.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise UsageError("this is too large to be a preprocessing", hint=_EXAMPLE)
        table = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text.decode())
        return _of(table)
    except OSError as error:
        raise UsageError(f"cannot read: {error.strerror}", where=f"--preprocess {path}", hint=_EXAMPLE) from error
    except (ValueError, RecursionError) as error:  # those of tomllib, json and UTF-8 are ValueErrors
        kind = "JSON" if path.suffix.lower() == ".json" else "TOML"
        what = f"this is not {kind}: {str(error) or 'nested too deep'}"
        raise UsageError(what, where=f"--preprocess {path}", hint=_EXAMPLE) from error
    except UsageError as error:
        raise UsageError(error.what, where=f"--preprocess {path}", hint=error.hint) from error


def _of(table: Any) -> Preprocess:
    if not isinstance(table, dict):
        _refuse("this is no table of keys", _EXAMPLE)
    known = tuple(field.name for field in dataclasses.fields(Preprocess))
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            _refuse(f"there is no key `{key}`", f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}")
    return Preprocess(**{key: _PARSERS.get(key, _text)(key, value) for key, value in table.items()})


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        _refuse(f"`{key}` is a text, got {value!r}")
    return value


def _edges(key: str, value: Any) -> tuple[int, int]:
    pair = [value, value] if isinstance(value, int) else value
    whole = isinstance(pair, list) and len(pair) == 2 and all(type(n) is int and 0 < n <= _MOST_EDGE for n in pair)
    if not whole:
        _refuse(f"`{key}` is [height, width] or one number, 1 to {_MOST_EDGE}, got {value!r}")
    return pair[0], pair[1]


def _numbers(key: str, value: Any) -> tuple[float, ...]:
    return tuple(_number(key, v) for v in value) if isinstance(value, list) else (_number(key, value),)


def _number(key: str, value: Any) -> float:
    if type(value) not in (int, float):
        _refuse(f"`{key}` takes numbers, got {value!r}")
    return float(value)


def _whole(key: str, value: Any) -> int:
    if type(value) is not int:
        _refuse(f"`{key}` is a whole number, got {value!r}")
    return int(value)


_PARSERS: dict[str, Any] = {
    "size": _edges,
    "crop": _edges,
    "fill": _whole,
    "scale": _number,
    "mean": _numbers,
    "std": _numbers,
}


def arithmetic(pixels: npt.NDArray[np.uint8], preprocess: Preprocess, dtype: str) -> npt.NDArray[Any]:
    """(pixel * scale - mean) / std of pixels [height, width, channels], 0 to 255, as `dtype`.

    Raises:
        UsageError: an integer type that cannot hold what comes out.
    """
    integer = np.dtype(dtype).kind in "iu"
    scale = preprocess.scale if preprocess.scale is not None else (1.0 if integer else 1 / 255)
    found: npt.NDArray[np.float64] = (pixels * scale - np.asarray(preprocess.mean)) / np.asarray(preprocess.std)
    if not integer:
        return found.astype(np.dtype(dtype))
    bounds, found = np.iinfo(dtype), np.rint(found)
    if found.size and not bounds.min <= found.min() <= found.max() <= bounds.max:
        what = f"{dtype} does not hold {found.min():g} to {found.max():g}"
        raise UsageError(what, where="--preprocess", hint="mean = 128 brings pixels into int8")
    return found.astype(np.dtype(dtype))


def _refuse(what: str, hint: str = _EXAMPLE) -> NoReturn:
    raise UsageError(what, where="preprocess", hint=hint)
