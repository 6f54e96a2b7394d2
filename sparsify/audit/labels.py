"""What is right: one label a sample, in the order of the samples over all feeds.

Files: `.npy`; `.npz` with the key `labels` or one array; `.txt` and `.csv` with a label a line, where a first line
that is no number names columns, of which `label` or the only one is taken. Whole numbers are classes, counted from 0;
with a fraction anywhere they are degrees.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparsify.errors import InputError, UsageError

_HINT = "one number a sample: .npy, .npz with the key `labels`, .csv with a column `label`, or .txt"


@dataclass(frozen=True)
class Labels:
    """What is right.

    Attributes:
        values: int64 (classes) or float64 (degrees), one a sample.
        output: the only output that they are about; None for all that fit.
        where: where they came from, for errors.
    """

    values: npt.NDArray[np.int64] | npt.NDArray[np.float64]
    output: str | None = None
    where: str = "labels"

    @property
    def classes(self) -> bool:
        """Whether they name classes."""
        return self.values.dtype.kind == "i"

    def check(self, outputs: Sequence[str]) -> None:
        """Refuse labels of an output that the model does not have.

        Raises:
            UsageError: names those that there are.
        """
        if self.output is not None and self.output not in outputs:
            hint = f"its outputs are {', '.join(outputs)}"
            raise UsageError(f"the model has no output `{self.output}`", where=self.where, hint=hint)


def read(text: str | Path) -> Labels:
    """Labels from `FILE` or `OUTPUT=FILE`.

    Raises:
        InputError: it cannot be read, or does not hold numbers, one a sample.
    """
    name, path = str(text), Path(text)
    output = None
    if "=" in name and not path.exists():
        output, _, rest = name.rpartition("=")
        path = Path(rest)
    where = f"--labels {name}"
    if not path.is_file():
        raise InputError("no such file", where=where, hint=_HINT)
    try:
        found = _READERS.get(path.suffix.lower(), _table)(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, csv.Error) as error:
        raise InputError(f"these are no labels: {error}", where=where, hint=_HINT) from error
    return of(found, output, where)


def of(values: npt.ArrayLike, output: str | None = None, where: str = "labels") -> Labels:
    """Labels from an array or a list.

    Raises:
        InputError: they are no numbers, or not one a sample.
    """
    found = np.asarray(values)
    if found.dtype.kind not in "biuf" or not found.size or max(found.shape, default=1) != found.size:
        what = f"these are no labels: {found.dtype} {list(found.shape)}"
        raise InputError(what, where=where, hint=_HINT)
    flat = found.reshape(-1).astype(np.float64)
    if not np.isfinite(flat).all():
        raise InputError("a label is NaN or infinite", where=where, hint=_HINT)
    whole = found.dtype.kind != "f" and not (flat < 0).any()
    return Labels(flat.astype(np.int64) if whole else flat, output, where)


def _numpy(path: Path) -> npt.NDArray[np.generic]:
    found = np.load(path, allow_pickle=False)  # a pickle runs code when it is read
    if not isinstance(found, np.lib.npyio.NpzFile):
        return np.asarray(found)
    with found:
        keys = found.files
        if "labels" not in keys and len(keys) != 1:
            raise ValueError(f"its keys are {', '.join(keys) or 'none'}")
        return np.asarray(found["labels" if "labels" in keys else keys[0]])


def _table(path: Path) -> npt.NDArray[np.generic]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    column = 0
    if (rows and not _number(rows[0][0])) or (rows and len(rows[0]) > 1):
        head = [cell.strip().lower() for cell in rows[0]]
        if "label" not in head and len(head) > 1:
            raise ValueError(f"no column `label` among {', '.join(head)[:200]}")
        column, rows = (head.index("label") if "label" in head else 0), rows[1:]
    cells = [row[column].strip() if column < len(row) else "" for row in rows]
    bad = next((cell for cell in cells if not _number(cell)), None)
    if bad is not None:
        raise ValueError(f"`{bad[:50]}` is no number")
    whole = all(cell.lstrip("+-").isdecimal() for cell in cells)
    return np.array([int(c) for c in cells], np.int64) if whole else np.array([float(c) for c in cells])


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_READERS = {".npy": _numpy, ".npz": _numpy}
