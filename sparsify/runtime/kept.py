"""Feeds that are kept, in memory up to a limit and in files beyond."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import numpy as np

from sparsify.data import Feed


class Kept:
    """By number; see the top of this file."""

    def __init__(self, feeds: list[Feed], memory: int) -> None:
        self._feeds: list[Feed | Path] = [*feeds]
        self._sizes = [0] * len(feeds)  # bytes in memory; what the caller gave is the caller's
        self._memory = memory
        self._lock = threading.Lock()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __len__(self) -> int:
        return len(self._feeds)

    def get(self, number: int) -> Feed:
        feed = self._feeds[number]
        if not isinstance(feed, Path):
            return feed
        with np.load(feed) as data:
            return {name: data[f"v{i}"] for i, name in enumerate(data["names"].tolist())}

    def put(self, number: int, feed: Feed) -> None:
        size = sum(array.nbytes for array in feed.values() if isinstance(array, np.ndarray))
        plain = all(isinstance(array, np.ndarray) and array.dtype != object for array in feed.values())
        with self._lock:
            self._sizes[number] = 0
            if not plain or sum(self._sizes) + size <= self._memory:
                self._feeds[number], self._sizes[number] = feed, size
                return
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="sparsify-")
            path = Path(self._folder.name) / f"{number}.npz"
        arrays = {f"v{i}": array for i, array in enumerate(feed.values())}
        np.savez(path, allow_pickle=False, names=np.array(list(feed), np.str_), **arrays)
        self._feeds[number] = path

    def close(self) -> None:
        self._feeds = []
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
