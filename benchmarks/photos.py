"""Photographs as a test of a saliency model: where in a picture it looks.

Eight photographs of scikit-image calibrate, six others are judged; of each, squares of several sizes and places.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.fetch import fetch
from sparsify.runtime import Session

Maps = npt.NDArray[np.float32]

CALIBRATION = ("astronaut", "coffee", "motorcycle_left", "camera", "ihc", "moon", "gravel", "page")
JUDGED = ("chelsea", "rocket", "coins", "hubble_deep_field", "retina", "grass")
CROPS = 6  # of each photograph
SIDE = 224  # pixels
BATCH = 4  # squares of a feed
_LEAST = 0.4  # of the shorter side: the smallest square
_MEAN, _SPREAD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # of ImageNet, red, green, blue
_INPUT, _OUTPUT = "input_image", "output_importance"


def squares(names: Sequence[str], crops: int = CROPS) -> npt.NDArray[np.float32]:
    """float32 [names * crops, 3, SIDE, SIDE], the same ones every time.

    Raises:
        FetchError: the photographs cannot be had.
    """
    draw = np.random.default_rng(0)
    found = []
    with zipfile.ZipFile(fetch("photos")) as archive:
        paths = {
            path.rsplit("/", 1)[1].rsplit(".", 1)[0]: path for path in archive.namelist() if "skimage/data/" in path
        }
        for name in names:
            photo = Image.open(io.BytesIO(archive.read(paths[name]))).convert("RGB")
            for _ in range(crops):
                side = int(min(photo.size) * draw.uniform(_LEAST, 1))
                left, top = (int(draw.integers(0, length - side + 1)) for length in photo.size)
                square = photo.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                found.append((np.asarray(square) / 255 - _MEAN) / _SPREAD)
    return np.ascontiguousarray(np.stack(found).transpose(0, 3, 1, 2), np.float32)


def calibration() -> list[dict[str, npt.NDArray[np.float32]]]:
    """Feeds."""
    pictures = squares(CALIBRATION)
    return [{_INPUT: pictures[i : i + BATCH]} for i in range(0, len(pictures), BATCH)]


def maps(session: Session) -> Maps:
    """How much each pixel of the judged squares matters, 0 to 1, [squares, H, W]."""
    pictures = squares(JUDGED)
    parts = [session.run([_OUTPUT], {_INPUT: pictures[i : i + BATCH]})[0] for i in range(0, len(pictures), BATCH)]
    return np.concatenate(parts)[:, 0]


def overlap(base: Maps, other: Maps) -> npt.NDArray[np.float64]:
    """Intersection over union [squares] of the pixels above 0.5; 1 where neither map has any."""
    one, two = base > 0.5, other > 0.5
    both, either = ((m.sum(axis=(1, 2), dtype=np.float64)) for m in (one & two, one | two))
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)
