"""How data is read: what was allowed, which files help, and how much may be taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsify.errors import InputError
from sparsify.machine import machine

_UNKNOWN_MEMORY = 2**33  # bytes; taken for a machine that does not say how much it has


@dataclass(frozen=True)
class Reading:
    """What a `--data` may need beside its name.

    Attributes:
        tokenizer: a `tokenizer.json`, for `text:`.
        preprocess: a `.toml` or `.json` file that says how pictures become arrays, for `images:`.
        trust: unpickle Python objects in `.npz` and `.npy`, which runs code that stands in the file.
    """

    tokenizer: Path | None = None
    preprocess: Path | None = None
    trust: bool = False


class Meter:
    """Counts the bytes of a data set, and refuses to go beyond half of this machine's memory."""

    def __init__(self, where: str, most: int | None = None) -> None:
        """`where` is what errors name; `most` bytes instead of half of the memory."""
        self._where, self._taken = where, 0
        self._most = most or (machine().memory or _UNKNOWN_MEMORY) // 2

    def take(self, count: int) -> None:
        """Count `count` bytes before they are read.

        Raises:
            InputError: that would be too much.
        """
        self._taken += count
        if self._taken > self._most:
            raise InputError(
                f"the data takes more than {self._most / 1e9:.3g} GB, half of this machine's memory",
                where=self._where,
                hint="give fewer samples",
            )

    def take_feed(self, feed: Mapping[str, Any]) -> None:
        """Count the arrays of a feed."""
        self.take(sum(int(array.nbytes) for array in feed.values()))
