"""Data as a program may give it, as a list of feeds that fit the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify import data as feeds
from sparsify import runtime

Feed = dict[str, npt.NDArray[Any]]
DataSource = str | Path | Mapping[str, Any] | Sequence[Mapping[str, Any]]


def read(data: DataSource, model: ir.Model) -> list[Feed]:
    """The feeds of `data`, checked against what `model` takes.

    Raises:
        InputError: there is none, one lacks an input, or one has the wrong type or rank.
    """
    found: list[Feed] = []
    if isinstance(data, (str, Path)):
        found = list(feeds.load(data))
    else:
        given = [data] if isinstance(data, Mapping) else list(data)
        found = [{name: np.asarray(array) for name, array in feed.items()} for feed in given]
    feeds.check(found, model.graph.inputs)
    return found


def synthesise(model: ir.Model, seed: int) -> tuple[Feed, bool]:
    """Numbers that only fill shapes, and whether those shapes are all the model's own.

    Nothing about drift may be learned from them.

    Raises:
        InputError: an input for which nothing can be invented.
    """
    shapes = [value.shape for value in model.graph.inputs if not value.is_initializer()]
    exact = all(shape is not None and shape.is_static() for shape in shapes)
    return dict(runtime.synthesize(model.graph.inputs, seed=seed)), exact
