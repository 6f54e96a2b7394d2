"""The samples that drifted furthest, written down: what went in, what came out of both models, how far apart it is.

    FOLDER/000041.npz            the inputs, of one sample where the batch can be divided: `--data FOLDER` takes them
    FOLDER/outputs/000041.npz    `base/NAME` and `candidate/NAME` of each output
    FOLDER/worst.json            of each sample the files, where it came from, its drift by output; worst first

The number is that of the sample over all feeds. A model whose batch is fixed above 1 takes a whole feed: then that is
what the files hold, and `row` says which of its rows is the sample.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsify import data, files, runtime
from sparsify.audit.report import DriftReport
from sparsify.data import Array, Feed
from sparsify.errors import UsageError
from sparsify.runtime import Session

INDEX = "worst.json"  # a folder that has it is ours, and may be replaced
_OUTPUTS = "outputs"


@dataclass(frozen=True)
class Saved:
    """One sample that was written.

    Attributes:
        file: name of its inputs in the folder.
        sample, feed, row: as in `persample.Sample`.
        source: where it came from; None when nobody knows.
        drift: by output that it is among the worst of.
        whole: the files hold the whole feed.
    """

    file: str
    sample: int
    feed: int
    row: int
    source: str | None
    drift: Mapping[str, float]
    whole: bool

    def to_dict(self) -> dict[str, Any]:
        """As JSON carries it; a drift that is not finite is null."""
        return {
            "file": self.file,
            "outputs": f"{_OUTPUTS}/{self.file}",
            "sample": self.sample,
            "feed": self.feed,
            "row": self.row,
            "whole": self.whole,
            "source": self.source,
            "drift": {name: v if math.isfinite(v) else None for name, v in self.drift.items()},
        }


def check(folder: Path, where: str = "--save-worst") -> None:
    """Say before the work that `folder` could not be written.

    Raises:
        UsageError: something else has its name, or the folder that it is to be in cannot be written to.
    """
    files.check_folder(folder, f"{where} {folder}")
    if folder.is_dir() and (folder / INDEX).is_file():
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        hint = "name a new or an empty folder, or one that was written so before"
        raise UsageError("this would overwrite something else", where=f"{where} {folder}", hint=hint)


def save(folder: Path, old: Session, new: Session, feeds: Sequence[Feed], report: DriftReport) -> list[Saved]:
    """Write the worst samples of `report`, up to ten of each output, into `folder`; those of an earlier run go.

    Args:
        folder: that becomes as described at the top of this file, as a whole or not at all.
        old, new: sessions of base and candidate.
        feeds: those that the report is of.
        report: of an audit.

    Raises:
        UsageError: it cannot be written.
    """
    check(folder)
    found = list(_worst(report, _fixed(old)))
    with files.replacing_folder(folder) as place:
        (place / _OUTPUTS).mkdir()
        for one in found:
            feed = feeds[one.feed]
            rows = data.rows(feed, old.get_inputs())
            inputs = {spec.name: np.asarray(feed[spec.name]) for spec in data.specs_of(old.get_inputs())}
            outputs = {
                f"{side}/{name}": value
                for side, session in (("base", old), ("candidate", new))
                for name, value in runtime.run(session, feed).items()
                if isinstance(value, np.ndarray)
            }
            _write(place / one.file, inputs, None if one.whole else rows, one.row)
            _write(place / _OUTPUTS / one.file, outputs, None if one.whole else rows, one.row)
        told = json.dumps({"samples": [one.to_dict() for one in found]}, indent=2, allow_nan=False)
        (place / INDEX).write_text(f"{told}\n", encoding="utf-8")
    return found


def _worst(report: DriftReport, whole: bool) -> list[Saved]:
    """The worst samples of all outputs, each once, that of the largest drift first."""
    drifts: dict[int, dict[str, float]] = {}
    known = {}
    for name, output in report.outputs.items():
        for sample in output.per_sample.worst:
            known[sample.sample] = sample
            drifts.setdefault(sample.sample, {})[name] = sample.value
    order = sorted(drifts, key=lambda number: (-max(drifts[number].values()), number))
    return [Saved(f"{n:06}.npz", n, known[n].feed, known[n].row, known[n].source, drifts[n], whole) for n in order]


def _fixed(session: Session) -> bool:
    """Whether the model's batch is a number above 1."""
    leading = [spec.shape[0] for spec in data.specs_of(session.get_inputs()) if spec.shape]
    return any(isinstance(size, int) and size > 1 for size in leading)


def _write(path: Path, arrays: Mapping[str, Array], rows: int | None, row: int) -> None:
    """Write `arrays`, of those that have `rows` rows only `row`. Strings as fixed widths: objects would be pickles."""
    chosen = {
        name: array[row : row + 1] if rows is not None and array.ndim and array.shape[0] == rows else array
        for name, array in arrays.items()
    }
    plain = {name: array.astype(np.str_) if array.dtype.kind == "O" else array for name, array in chosen.items()}
    np.savez(path, allow_pickle=False, **plain)
