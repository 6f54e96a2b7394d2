"""Rendered lines as a test of a text recogniser: words of the Brown corpus, one font; sizes, greys, noise are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import onnx
from PIL import Image, ImageDraw, ImageFont

from benchmarks import brown
from models.fetch import fetch
from sparsify.runtime import Session

LEARNT, JUDGED = 96, 150  # lines
HEIGHT = 48  # pixels
_INPUT, _OUTPUT = "x", "fetch_name_0"
_NOISE = 12  # standard deviation, of 255 greys
Picture = npt.NDArray[np.float32]


def texts(samples: Sequence[str], count: int) -> list[str]:
    """Lines of three to six words.

    Raises:
        FetchError: the corpus cannot be had.
    """
    draw = np.random.default_rng(0)
    words = iter(" ".join(map(brown.text, samples)).split())
    return [" ".join(next(words) for _ in range(draw.integers(3, 7))) for _ in range(count)]


def pictures(lines: Sequence[str]) -> Iterator[Picture]:
    """float32 [1, 3, HEIGHT, W] of each line, from -1 to 1."""
    draw = np.random.default_rng(1)
    for line in lines:
        font = ImageFont.load_default(int(draw.integers(18, 36)))
        _, _, right, bottom = font.getbbox(line)
        paper, ink = (int(draw.integers(*ends)) for ends in ((200, 256), (0, 80)))
        image = Image.new("RGB", (int(right) + 12, int(bottom) + 10), (paper,) * 3)
        ImageDraw.Draw(image).text((6, 4), line, fill=(ink,) * 3, font=font)
        width = max(16, round(image.width * HEIGHT / image.height))
        pixels = np.asarray(image.resize((width, HEIGHT), Image.Resampling.BILINEAR), np.float32)
        noisy = np.clip(pixels + draw.standard_normal(pixels.shape) * _NOISE, 0, 255)
        yield np.ascontiguousarray((noisy / 127.5 - 1).transpose(2, 0, 1)[None], np.float32)


def calibration() -> list[dict[str, Picture]]:
    """Feeds of a line each: they differ in width."""
    return [{_INPUT: picture} for picture in pictures(texts(brown.CALIBRATION, LEARNT))]


def read(session: Session) -> list[str]:
    """What each judged line is taken for: the likeliest character of each place, repetitions and blanks dropped."""
    return [
        reading(session.run([_OUTPUT], {_INPUT: picture})[0][0]) for picture in pictures(texts(brown.JUDGED, JUDGED))
    ]


def reading(scores: npt.NDArray[np.float32]) -> str:
    """What scores [places, characters] say."""
    best = scores.argmax(axis=1)
    kept = best[(best != 0) & (best != np.concatenate([[0], best[:-1]]))]
    return "".join(_alphabet()[i] for i in kept)


def wrong_characters(lines: Sequence[str], readings: Sequence[str]) -> float:
    """Insertions, deletions and replacements that turn the readings into the lines, for each character of these."""
    edits = sum(_distance(line, reading) for line, reading in zip(lines, readings, strict=True))
    return edits / sum(map(len, lines))


@cache
def _alphabet() -> list[str]:
    properties = onnx.load(fetch("ppocr-recogniser"), load_external_data=False).metadata_props
    (characters,) = (p.value for p in properties if p.key == "character")
    return ["", *characters.splitlines(), " "]


def _distance(one: str, other: str) -> int:
    """Levenshtein's."""
    row: list[int] = [*range(len(other) + 1)]
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]
