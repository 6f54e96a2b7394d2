"""Lines of text as feeds of a transformer, by a `tokenizer.json` (the package `tokenizers`).

Texts are cut to `length` tokens: as asked; else as the model's inputs demand; else as the tokenizer was made to; else
512, what BERT has positions for. The texts of a feed are padded to its longest, or to what the inputs demand, as the
tokenizer was made to pad. Padding can only be hidden from a model that takes an `attention_mask`: one that does not
gets its texts one at a time, unless asked otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsify.data.feeds import Array, Feed, FileFeed, TensorSpec
from sparsify.data.reading import Meter, Reading
from sparsify.errors import InputError, UsageError

BATCH, LENGTH = 8, 512  # texts a feed, tokens a text: where nobody and nothing else says
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_PADS = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "</s>")  # by which a tokenizer that says nothing may pad
_LONGEST = 2**20  # characters of a line: some 500 pages
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Padding:
    """Ids of what pads a text, and on which side."""

    token: int
    kind: int
    left: bool


def read(
    name: str,
    specs: Sequence[TensorSpec],
    reading: Reading,
    meter: Meter,
    *,
    batch: int | None = None,
    length: int | None = None,
    limit: int | None = None,
) -> list[Feed]:
    """The texts in the file `name`: one a line; of a `.jsonl`, the `text` of each line's object. Empty lines are none.

    Args:
        name: of a file in UTF-8.
        specs: what the model takes: of `INPUTS`, shapes [batch, length].
        reading: its tokenizer is needed.
        meter: counts the arrays.
        batch: texts a feed.
        length: most tokens of a text.
        limit: texts, the first ones.

    Raises:
        UsageError: no tokenizer, or the package for it is not installed.
        InputError: a file that cannot be read, no text in it, an input that text cannot fill.
    """
    _check_inputs(specs)
    fixed = [_fixed(specs, axis) for axis in (0, 1)]
    masked = any(spec.name == "attention_mask" for spec in specs)
    texts = list(islice(_texts(Path(name)), limit))
    if not texts:
        raise InputError("there is no text in it", where=name, hint="write one text a line")
    batch = batch or fixed[0] or (BATCH if masked else 1)
    if fixed[0] and len(texts) % batch:
        least = len(texts) - len(texts) % batch
        hint = f"add ,limit={least} to leave {len(texts) - least} out" if least else "give more texts"
        raise InputError(f"the model takes {batch} texts at a time, and there are {len(texts)}", where=name, hint=hint)
    tokenizer, padding = _tokenizer(reading.tokenizer, min((n for n in (length, fixed[1]) if n), default=None))
    feeds: list[Feed] = []
    for start in range(0, len(texts), batch):
        numbers, lines = zip(*texts[start : start + batch], strict=True)
        encoded = tokenizer.encode_batch(list(lines))
        arrays = _arrays(encoded, specs, padding, fixed[1], f"{name}, line {numbers[0]}")
        meter.take_feed(arrays)
        origins = [f"{name}, line {number}" for number in numbers]
        feeds.append(FileFeed(arrays, f"{name}, lines {numbers[0]} to {numbers[-1]}", origins))
    return feeds


def _check_inputs(specs: Sequence[TensorSpec]) -> None:
    for spec in specs:
        if spec.name not in INPUTS or (spec.shape is not None and len(spec.shape) != 2):
            hint = f"text fills {', '.join(INPUTS)} of shape [batch, length]; save others as `.npz`"
            raise InputError(f"input `{spec.name}`, {spec}, cannot be made from text", where="--data text:", hint=hint)


def _fixed(specs: Sequence[TensorSpec], axis: int) -> int | None:
    """The size that the model demands along `axis`."""
    sizes = [spec.shape[axis] for spec in specs if spec.shape]
    return next((size for size in sizes if isinstance(size, int)), None)


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """Numbers of lines, from 1, and the text in each."""
    objects = path.suffix.lower() == ".jsonl"
    number = 0
    try:
        with path.open(encoding="utf-8") as file:
            while line := file.readline(_LONGEST + 1):
                number += 1
                if len(line) > _LONGEST:
                    raise InputError(f"line {number} has over {_LONGEST:,} characters", where=str(path), hint="cut it")
                if line.strip():
                    yield number, _text_of(line, f"{path}, line {number}") if objects else line.rstrip("\n")
    except OSError as error:
        hint = "text:FILE names a file with one text a line"
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), hint=hint) from error
    except UnicodeDecodeError as error:
        raise InputError(f"no UTF-8 after line {number}", where=str(path), hint="save it as UTF-8") from error


def _text_of(line: str, where: str) -> str:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError("this is no JSON", where=where, hint='such as {"text": "a text"}') from error
    if not isinstance(found, dict) or not isinstance(found.get("text"), str):
        raise InputError("this is no object with a `text`", where=where, hint='such as {"text": "a text"}')
    return str(found["text"])


def _tokenizer(path: Path | None, length: int | None) -> tuple[Any, _Padding]:
    """The tokenizer, cutting texts to `length` tokens and padding none, and how it would pad."""
    if path is None:
        hint = "give the model's tokenizer.json with --tokenizer"
        raise UsageError("text needs a tokenizer", where="--data text:", hint=hint)
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        hint = "pip install 'sparsify-onnx[text]'"
        raise UsageError("text needs the package `tokenizers`", where="--data text:", hint=hint) from error
    if not path.is_file():
        raise InputError("no such file", where=str(path), hint="--tokenizer names a tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises plain Exceptions
        hint = "it is the file that the package `tokenizers` saves"
        raise InputError(f"this is no tokenizer.json: {error}", where=str(path), hint=hint) from error
    cut = tokenizer.truncation or {"max_length": LENGTH}
    tokenizer.enable_truncation(**{**cut, **({"max_length": length} if length else {})})
    own = tokenizer.padding or {}
    tokenizer.no_padding()
    known = (number for token in _PADS if (number := tokenizer.token_to_id(token)) is not None)
    return tokenizer, _Padding(
        own.get("pad_id", next(known, 0)), own.get("pad_type_id", 0), own.get("direction") == "left"
    )


def _arrays(
    encoded: Sequence[Any], specs: Sequence[TensorSpec], padding: _Padding, width: int | None, where: str
) -> dict[str, Array]:
    lengths = [len(row.ids) for row in encoded]
    if not all(lengths):
        raise InputError("the tokenizer makes no token of a text", where=where, hint="leave such texts out")
    shape = (len(lengths), width or max(lengths))
    ids: _Ints = np.full(shape, padding.token, np.int64)
    types: _Ints = np.full(shape, padding.kind, np.int64)
    mask: _Ints = np.zeros(shape, np.int64)
    for row, (text, length) in enumerate(zip(encoded, lengths, strict=True)):
        place = slice(shape[1] - length, None) if padding.left else slice(length)
        ids[row, place], types[row, place], mask[row, place] = text.ids, text.type_ids, 1
    positions: _Ints = np.maximum(mask.cumsum(axis=1) - 1, 0)  # from the first token on, wherever padding stands
    made = dict(zip(INPUTS, (ids, mask, types, positions), strict=True))
    return {spec.name: made[spec.name].astype(spec.dtype or "int64") for spec in specs}
