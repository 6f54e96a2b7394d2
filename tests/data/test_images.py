"""Pictures as arrays: each step against what it means, wrong files and wrong pictures refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from sparsify import data
from sparsify.data import TensorSpec, images, preprocess
from sparsify.errors import InputError, UsageError

Image = pytest.importorskip("PIL.Image")
NCHW = [TensorSpec("x", "float32", ("n", 3, "h", "w"))]
NHWC = [TensorSpec("x", "float32", ("n", "h", "w", 3))]


def picture(folder: Path, name: str = "a.png", height: int = 4, width: int = 6, mode: str = "RGB") -> np.ndarray:
    """A picture of random pixels, and those."""
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    pixels = np.random.default_rng(len(name)).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels, mode).save(folder / name)
    return pixels


def how(folder: Path, text: str, name: str = "p.toml") -> data.Reading:
    (folder / name).write_text(text)
    return data.Reading(preprocess=folder / name)


def load(folder: Path, text: str, specs: list[TensorSpec] = NCHW, options: str = "") -> np.ndarray:
    (feed,) = data.load(f"images:{folder}{options}", specs, how(folder, text))
    return feed["x"]


def test_arithmetic_channels_and_layout(tmp_path: Path):
    pixels = picture(tmp_path).astype(np.float64)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    expected = ((pixels / 255 - mean) / std).astype(np.float32)
    found = load(tmp_path, f'resize = "none"\nmean = {mean}\nstd = {std}')
    assert found.shape == (1, 3, 4, 6)
    # One rounding to float32 of figures up to 2.7; 1/255 in float64 adds nothing that shows.
    np.testing.assert_allclose(found[0], expected.transpose(2, 0, 1), rtol=2**-23, atol=2**-30)
    bgr = load(tmp_path, 'resize = "none"\nchannels = "bgr"\nlayout = "NHWC"\nscale = 1', NHWC)
    assert np.array_equal(bgr[0], pixels[:, :, ::-1])


def test_integers_stay_pixels(tmp_path: Path):
    pixels = picture(tmp_path)
    specs = [TensorSpec("x", "uint8", ("n", "h", "w", 3))]
    assert np.array_equal(load(tmp_path, 'resize = "none"\nlayout = "NHWC"', specs)[0], pixels)
    signed = load(tmp_path, 'resize = "none"\nlayout = "NHWC"\nmean = 128\ndtype = "int8"', specs)
    assert np.array_equal(signed[0], pixels.astype(int) - 128)
    with pytest.raises(UsageError, match="int8 does not hold"):
        load(tmp_path, 'resize = "none"\ndtype = "int8"', specs)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("size = 8", (8, 8)),
        ("size = [3, 5]", (3, 5)),
        ('size = 8\nresize = "cover"', (8, 8)),
        ('size = 8\nresize = "cover"\ncrop = 6', (6, 6)),
        ('size = 8\nresize = "cover"\ncrop = [8, 12]', (8, 12)),  # 4 x 6 covers 8 x 8 as 8 x 12
        ('size = 12\nresize = "contain"', (12, 12)),
        ('resize = "none"\ncrop = [2, 4]', (2, 4)),
    ],
)
def test_sizes(tmp_path: Path, text: str, shape: tuple[int, int]):
    picture(tmp_path)
    assert load(tmp_path, text).shape == (1, 3, *shape)


def test_contain_pads_and_crop_takes_the_middle(tmp_path: Path):
    pixels = picture(tmp_path)
    padded = load(tmp_path, 'size = 6\nresize = "contain"\nfill = 7\nscale = 1\nlayout = "NHWC"', NHWC)[0]
    assert np.array_equal(padded[1:5], pixels)
    assert (padded[[0, 5]] == 7).all()
    cut = load(tmp_path, 'resize = "none"\ncrop = [2, 4]\nscale = 1\nlayout = "NHWC"', NHWC)[0]
    assert np.array_equal(cut, pixels[1:3, 1:5])


def test_resizing_is_pillow_s(tmp_path: Path):
    pixels = picture(tmp_path)
    for name in preprocess.INTERPOLATIONS:
        text = f'size = [7, 5]\ninterpolation = "{name}"\nscale = 1\nlayout = "NHWC"'
        expected = Image.fromarray(pixels).resize((5, 7), Image.Resampling[name.upper()])
        assert np.array_equal(load(tmp_path, text, NHWC)[0], np.asarray(expected))


def test_gray_and_transparent_pictures(tmp_path: Path):
    picture(tmp_path, "a.png", mode="L")
    picture(tmp_path, "b.png", mode="RGBA")
    assert load(tmp_path, 'resize = "none"').shape == (2, 3, 4, 6)
    assert load(tmp_path, 'resize = "none"\nchannels = "gray"').shape == (2, 1, 4, 6)


def test_feeds_are_batches_in_order_of_names(tmp_path: Path):
    for name in ("c.png", "a.bmp", "b.ppm"):
        picture(tmp_path, name)
    (tmp_path / "notes.txt").write_text("no picture")
    reading = how(tmp_path, "size = 4")
    found = data.load(f"images:{tmp_path},batch=2", NCHW, reading)
    assert [feed["x"].shape[0] for feed in found] == [2, 1]
    assert [Path(o).name for feed in found for o in feed.origins] == ["a.bmp", "b.ppm", "c.png"]
    assert len(data.load(f"images:{tmp_path}/*.ppm,limit=3", NCHW, reading)) == 1
    one = [TensorSpec("x", "float32", (1, 3, 4, 4))]
    assert [feed["x"].shape[0] for feed in data.load(f"images:{tmp_path}", one, reading)] == [1, 1, 1]
    with pytest.raises(InputError, match="takes 2 pictures at a time, and there are 3"):
        data.load(f"images:{tmp_path}", [TensorSpec("x", "float32", (2, 3, 4, 4))], reading)


def test_json_says_the_same(tmp_path: Path):
    picture(tmp_path)
    table = {"size": [4, 4], "mean": [0.5, 0.5, 0.5], "std": 0.5}
    reading = how(tmp_path, json.dumps(table), "p.json")
    (feed,) = data.load(f"images:{tmp_path}", NCHW, reading)
    assert np.array_equal(feed["x"], load(tmp_path, "size = 4\nmean = 0.5\nstd = 0.5"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "`size` is missing"),
        ("sizes = 4", "no key `sizes`"),
        ("size = 0", "`size` is"),
        ("size = [1, 2, 3]", "`size` is"),
        ("size = true", "`size` is"),
        ("size = 99999999", "`size` is"),
        ('size = 4\nresize = "squash"', "`resize` is one of"),
        ('size = 4\nlayout = "CHW"', "`layout` is one of"),
        ("size = 4\nlayout = 3", "`layout` is a text"),
        ("size = 4\nmean = [1, 2]", "`mean` has one number"),
        ("size = 4\nstd = 0", "no `std` is 0"),
        ("size = 4\nscale = nan", "finite"),
        ("size = 4\nmean = 'x'", "`mean` takes numbers"),
        ("size = 4\nfill = 300", "`fill` is from 0 to 255"),
        ('size = 4\nresize = "none"', "says nothing"),
        ("size = ", "not TOML"),
        ("x = " + "[" * 5000, "not TOML"),
    ],
)
def test_what_means_nothing_is_refused(tmp_path: Path, text: str, words: str):
    picture(tmp_path)
    with pytest.raises(UsageError, match=words) as error:
        load(tmp_path, text)
    assert str(tmp_path / "p.toml") in error.value.where
    assert error.value.hint


def test_what_is_no_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    reading = how(tmp_path, "size = 4")
    with pytest.raises(InputError, match="no picture here"):
        data.load(f"images:{tmp_path}", NCHW, reading)
    for name, content in (("a.png", b"no picture"), ("b.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            data.load(f"images:{tmp_path / name}", NCHW, reading)
        (tmp_path / name).unlink()
    picture(tmp_path)
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:-40])
    with pytest.raises(InputError, match="cannot be read"):
        data.load(f"images:{tmp_path / 'cut.png'}", NCHW, reading)
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match="8 bits a channel"):
        data.load(f"images:{tmp_path / 'deep.png'}", NCHW, reading)
    monkeypatch.setattr(images, "_MOST_PIXELS", 20)
    with pytest.raises(InputError, match="6 x 4 pixels are too many"):
        data.load(f"images:{tmp_path / 'a.png'}", NCHW, reading)


def test_what_pictures_cannot_fill_is_refused(tmp_path: Path):
    picture(tmp_path)
    reading = how(tmp_path, 'resize = "none"')
    for takes in ([TensorSpec("x", "float32", ("n", 3))], [*NCHW, TensorSpec("y", "float32", ("n", 3, "h", "w"))]):
        with pytest.raises(InputError, match="pictures cannot fill"):
            data.load(f"images:{tmp_path}", takes, reading)
    picture(tmp_path, "b.png", height=5)
    with pytest.raises(InputError, match=r"\[3, 5, 6\], and .*a.png of \[3, 4, 6\]"):
        data.load(f"images:{tmp_path}", NCHW, reading)
    with pytest.raises(UsageError, match="need a preprocessing"):
        data.load(f"images:{tmp_path}", NCHW)


def test_says_which_package_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    picture(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UsageError, match="need the package `pillow`"):
        data.load(f"images:{tmp_path}", NCHW, how(tmp_path, "size = 4"))
