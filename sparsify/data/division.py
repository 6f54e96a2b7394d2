"""Dividing feeds into those that calibrate and those that judge, and telling contents apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sparsify.data.feeds import Array, Feed, rows, specs_of
from sparsify.errors import InputError


class IndivisibleError(InputError):
    """Data that cannot be divided: there is only one distinct sample, or one feed that must stay whole."""


def digest(feeds: Iterable[Mapping[str, Array]]) -> str:
    """SHA-256 in hex over feeds in their order, of each the names (sorted), types, shapes and bytes of its arrays.

    Before an array's bytes (C order; of strings, their JSON) stands one line of JSON: [feed, name, type, shape].
    """
    found = hashlib.sha256()
    for index, feed in enumerate(feeds):
        for name in sorted(feed):
            array = np.asarray(feed[name])
            found.update(json.dumps([index, name, array.dtype.str, array.shape]).encode() + b"\n")
            found.update(_bytes(array))
    return found.hexdigest()


def split(feeds: Sequence[Feed], seed: int = 0, inputs: Iterable[Any] | None = None) -> tuple[list[Feed], list[Feed]]:
    """Divide feeds at random into a half for calibration and a half for the audit.

    Several feeds are divided as they are, one feed is divided by its samples. Equal feeds, or equal
    samples, go to the same side, so that no content is on both. Each side has at least one.

    Args:
        feeds: at least one.
        seed: of the division.
        inputs: as in `check`; a model whose batch size is fixed above 1 cannot take half a batch.

    Raises:
        IndivisibleError: there is only one distinct sample, or one feed that cannot be divided by samples.
        InputError: there is no sample at all.
    """
    if not feeds:
        raise InputError("there are no feeds", hint="give at least one `.npz`")
    specs = None if inputs is None else specs_of(inputs)
    if len(feeds) > 1:
        first, second = _halves([digest([f]) for f in feeds], seed)
        return [feeds[i] for i in first], [feeds[i] for i in second]
    feed = feeds[0]
    keys = tuple(feed) if specs is None else tuple(s.name for s in specs)
    count = rows(feed, specs)
    fixed = specs is not None and any(s.shape and isinstance(s.shape[0], int) for s in specs)
    if count == 0:
        raise InputError("there is no sample in it", where=_source(feed), hint="give arrays that have rows")
    if count is None or count < 2 or fixed:
        raise IndivisibleError(
            "one sample cannot serve both calibration and audit",
            where=_source(feed),
            hint="give a folder of several `.npz`, or arrays with more than one row along a batch dimension",
        )
    samples = [digest([{k: feed[k][i] for k in keys}]) for i in range(count)]
    first, second = _halves(samples, seed)
    return [{k: feed[k][first] for k in keys}], [{k: feed[k][second] for k in keys}]


def _source(feed: Feed) -> str:
    return str(getattr(feed, "source", "the only feed"))


def _halves(contents: Sequence[str], seed: int) -> tuple[list[int], list[int]]:
    """Indices of two sides, each in order; equal contents on the same side."""
    groups: dict[str, list[int]] = {}
    for index, content in enumerate(contents):
        groups.setdefault(content, []).append(index)
    if len(groups) < 2:
        raise IndivisibleError(
            "all samples are equal: none is left for the audit", hint="give data that has different samples"
        )
    distinct = list(groups.values())
    order = np.random.default_rng(seed).permutation(len(distinct))
    middle = len(distinct) // 2
    first, second = (sorted(i for g in part for i in distinct[g]) for part in (order[:middle], order[middle:]))
    return first, second


def _bytes(array: Array) -> bytes | memoryview:
    if array.dtype.kind in "OU":
        return json.dumps(array.tolist(), default=repr).encode()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data  # without a copy, and bfloat16 has no buffer
