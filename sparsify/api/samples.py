"""Data as a program may give it, as a list of feeds that fit the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify import coo, modelio, runtime
from sparsify import data as feeds
from sparsify.errors import InputError

Feed = dict[str, npt.NDArray[Any]]
# Processor time of a run on made-up numbers, for a model of up to 1 GB; each further takes as long again.
DEADLINE_S = 60.0
INVENTED = 16  # feeds; with fewer than ten, intervals say little
_MADE_UP = (
    "the inputs were made up in the shapes that the model declares; where it takes others, give samples with --data"
)
DataSource = str | Path | Mapping[str, Any] | Sequence[Mapping[str, Any]]


def read(data: DataSource, model: ir.Model, reading: feeds.Reading | None = None) -> list[Feed]:
    """The feeds of `data`, checked against what `model` takes.

    Raises:
        InputError: there is none, one lacks an input, or one has the wrong type or rank.
        UsageError: what the data needs to be read is missing.
    """
    found: list[Feed] = []
    if isinstance(data, (str, Path)):
        found = list(feeds.load(data, model.graph.inputs, reading))
    else:
        given = [data] if isinstance(data, Mapping) else list(data)
        found = [
            feed if isinstance(feed, feeds.FileFeed) else {k: np.asarray(v) for k, v in feed.items()} for feed in given
        ]
    feeds.check(found, model.graph.inputs)
    return found


class Invented(list[Feed]):
    """Feeds that were made up, because there was no data."""


def read_or_invent(
    data: DataSource | None, model: ir.Model, reading: feeds.Reading | None = None, seed: int = 0
) -> list[Feed]:
    """The feeds of `data`, as `read` gives them; where there is none, `INVENTED` of what `synthesise` gives.

    Raises:
        InputError: as `read` and `synthesise`.
        UsageError: as `read`.
    """
    if isinstance(data, Invented):
        return data
    if data is not None:
        return read(data, model, reading)
    return Invented(synthesise(model, seed + number)[0] for number in range(INVENTED))


@contextmanager
def told_of(samples: Sequence[Feed] | None) -> Iterator[None]:
    """Have an error of onnxruntime say that its inputs were made up: where `samples` are, or there are none."""
    try:
        yield
    except InputError as error:
        if error.hint or not (samples is None or isinstance(samples, Invented)):
            raise
        raise InputError(error.what, where=error.where, hint=_MADE_UP) from error


def synthesise(model: ir.Model, seed: int) -> tuple[Feed, bool]:
    """Numbers that only fill shapes, and whether those shapes are all the model's own.

    Nothing about drift may be learned from them.

    Raises:
        InputError: an input for which nothing can be invented.
    """
    shapes = [value.shape for value in model.graph.inputs if not value.is_initializer()]
    exact = all(shape is not None and shape.is_static() for shape in shapes)
    return dict(runtime.synthesize(model.graph.inputs, seed=seed)), exact


class Trial(NamedTuple):
    """A feed, whether all its shapes are the model's own, and what the model answers to it."""

    feed: Feed | None = None
    exact: bool = False
    answers: Feed | None = None


def trial(model: ir.Model, seed: int) -> Trial:
    """`model` on what `synthesise` gives; nothing where it does not run on it, come to an end, or fit.

    Numbers that mean nothing may be refused by a model.

    Raises:
        InputError: onnxruntime cannot load the model at all.
    """
    if coo.too_large_to_run(model) is not None:
        return Trial()
    session = runtime.session(model)
    try:
        sample, exact = synthesise(model, seed)
        answers = runtime.run(session, sample, limit_s=DEADLINE_S * (1 + modelio.tensor_bytes(model) // 10**9))
    except InputError:  # the feed is at fault, not the model
        return Trial()
    return Trial(sample, exact, answers)
