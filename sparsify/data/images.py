"""Pictures as feeds (the package `pillow`), by a file that says how; see `preprocess`.

A picture is turned as its EXIF says, as people see it. Of a moving one the first picture counts. Transparency is
dropped.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from glob import glob, has_magic
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sparsify.data import preprocess
from sparsify.data.feeds import Array, Feed, FileFeed, TensorSpec
from sparsify.data.preprocess import CHANNELS, Preprocess
from sparsify.data.reading import Meter, Reading
from sparsify.errors import InputError, UsageError

BATCH = 8  # pictures a feed, where the model does not say
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# No others are even tried: Pillow would start Ghostscript for EPS.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # 8 bits a channel
_MOST_PIXELS = 2**26  # 67 million; 200 MB when unpacked


def read(
    name: str,
    specs: Sequence[TensorSpec],
    reading: Reading,
    meter: Meter,
    *,
    batch: int | None = None,
    limit: int | None = None,
) -> list[Feed]:
    """The pictures of a folder, a glob or a file, sorted by name.

    Args:
        name: of it.
        specs: what the model takes: one input of four dimensions.
        reading: its preprocessing is needed.
        meter: counts the arrays.
        batch: pictures a feed.
        limit: pictures, the first ones.

    Raises:
        UsageError: no preprocessing, or the package that reads pictures is not installed.
        InputError: nothing there, a file that is no picture, an input that pictures cannot fill.
    """
    if reading.preprocess is None:
        hint = "say with --preprocess FILE.toml how they become arrays, such as: size = 224"
        raise UsageError("pictures need a preprocessing", where="--data images:", hint=hint)
    how = preprocess.read(reading.preprocess)
    spec = _input(specs, how)
    files = list(islice(_files(name), limit))
    batch, size = _batch(spec, batch), len(files)
    if isinstance(spec.shape and spec.shape[0], int) and size % batch:
        hint = f"add ,limit={size - size % batch} to leave {size % batch} out" if size >= batch else "give more"
        raise InputError(f"the model takes {batch} pictures at a time, and there are {size}", where=name, hint=hint)
    feeds: list[Feed] = []
    for start in range(0, size, batch):
        chosen = files[start : start + batch]
        rows = [_array(file, how, how.dtype or spec.dtype or "float32") for file in chosen]
        if odd := next((i for i, row in enumerate(rows) if row.shape != rows[0].shape), None):
            shapes = f"{list(rows[odd].shape)}, and {chosen[0]} of {list(rows[0].shape)}"
            hint = "give `size` or `crop`, or batch=1"
            raise InputError(f"it makes an array of {shapes}", where=str(chosen[odd]), hint=hint)
        arrays = {spec.name: np.stack(rows)}
        meter.take_feed(arrays)
        feeds.append(FileFeed(arrays, f"{chosen[0]} to {chosen[-1].name}", [str(file) for file in chosen]))
    return feeds


def _batch(spec: TensorSpec, batch: int | None) -> int:
    fixed = spec.shape[0] if spec.shape else None
    return batch or (fixed if isinstance(fixed, int) else BATCH)


def _input(specs: Sequence[TensorSpec], how: Preprocess) -> TensorSpec:
    fitting = [s for s in specs if how.input in (None, s.name) and (s.shape is None or len(s.shape) == 4)]
    if len(specs) == 1 and len(fitting) == 1:
        return fitting[0]
    takes = "; ".join(f"`{s.name}`, {s}" for s in specs)
    hint = "pictures fill the only input of a model, of four dimensions; save others as `.npz`"
    raise InputError(f"pictures cannot fill what the model takes: {takes}", where="--data images:", hint=hint)


def _files(name: str) -> list[Path]:
    path = Path(name)
    if path.is_file():
        return [path]
    candidates = path.iterdir() if path.is_dir() else map(Path, glob(name, recursive=True) if has_magic(name) else ())
    found = sorted(p for p in candidates if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        kinds = ", ".join(SUFFIXES)
        raise InputError("there is no picture here", where=name, hint=f"a folder, a glob or a file of {kinds}")
    return found


def _array(path: Path, how: Preprocess, dtype: str) -> Array:
    """One picture, [channels, height, width] or [height, width, channels]."""
    pixels = _pixels(path, how)
    if how.channels == "bgr":
        pixels = pixels[:, :, ::-1]
    found = preprocess.arithmetic(pixels, how, dtype)
    return np.ascontiguousarray(found.transpose(2, 0, 1) if how.layout == "NCHW" else found)


def _pixels(path: Path, how: Preprocess) -> Array:
    """uint8 [height, width, channels]."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        hint = "pip install 'sparsify-onnx[images]'"
        raise UsageError("pictures need the package `pillow`", where="--data images:", hint=hint) from error
    try:
        with warnings.catch_warnings(), Image.open(path, formats=_FORMATS) as opened:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if opened.width * opened.height > _MOST_PIXELS:
                raise ValueError(f"{opened.width} x {opened.height} pixels are too many")
            if opened.mode not in _MODES:
                raise ValueError(f"it has not 8 bits a channel but the mode {opened.mode}")
            image = ImageOps.exif_transpose(opened).convert("L" if how.channels == "gray" else "RGB")
    except Exception as error:  # each of Pillow's readers raises what it likes
        hint = "look at it with another program, or take it out"
        raise InputError(f"this picture cannot be read: {error}", where=str(path), hint=hint) from error
    fitted = np.asarray(_resized(image, how))
    height, width = fitted.shape[:2]
    crop = how.crop or (how.size if how.resize == "cover" else None)
    if crop is not None:
        if crop[0] > height or crop[1] > width:
            raise InputError(f"{height} x {width} pixels are less than `crop`", where=str(path), hint="give `size`")
        top, left = round((height - crop[0]) / 2), round((width - crop[1]) / 2)
        fitted = fitted[top : top + crop[0], left : left + crop[1]]
    return fitted.reshape(*fitted.shape[:2], CHANNELS[how.channels])


def _resized(image: Any, how: Preprocess) -> Any:
    from PIL import Image

    if how.size is None:
        return image
    height, width = how.size
    method = Image.Resampling[how.interpolation.upper()]
    if how.resize == "stretch":
        return image.resize((width, height), method)
    ratios = (width / image.width, height / image.height)
    ratio = max(ratios) if how.resize == "cover" else min(ratios)
    # The side that decides the ratio must come out exactly; the other is cut to whole pixels, as torchvision does.
    fitted = [max(1, int(edge * ratio + 1e-9)) for edge in (image.width, image.height)]
    image = image.resize((fitted[0], fitted[1]), method)
    if how.resize == "cover":
        return image
    padded = Image.new(image.mode, (width, height), how.fill if image.mode == "L" else (how.fill,) * 3)
    padded.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return padded
