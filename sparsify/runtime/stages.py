"""Running a model in stages, so that what its early layers compute is computed once however often it is stopped.

A stage ends right after the node that makes a value somebody asked for. What the rest of the model still needs (the
live values at that cut) is kept for each feed and is what the next stage starts from. Between stages the model may be
edited, as long as only nodes change that have not run yet: this is how layers are pruned in order, each for the inputs
that the pruned layers before it really give.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify import storage
from sparsify.runtime.sessions import Session, open_skeleton, run, session
from sparsify.runtime.source import Skeleton
from sparsify.runtime.staged import made_by, read_by, stage

Array = npt.NDArray[Any]
Feed = dict[str, Array]


class Stages:
    """The main graph of `model` on `feeds`, from its inputs to wherever `advance` was last told to go."""

    def __init__(
        self,
        model: ir.Model,
        feeds: Iterable[Mapping[str, Array]],
        *,
        threads: int | None = None,
        memory: int = 2**31,
    ) -> None:
        """Nothing runs yet; `feeds` are kept by reference. Live values beyond `memory` bytes go to a scratch folder."""
        self._model = model
        self._threads = threads
        self._done = 0  # nodes that have run
        self._begun: tuple[str, Callable[[int], Feed]] | None = None  # by `begin`
        self._pool = ThreadPoolExecutor(1)
        names = {str(v.name) for v in model.graph.inputs}
        self._live = _Kept([{n: a for n, a in feed.items() if n in names} for feed in feeds], memory)

    def close(self) -> None:
        """Forget all values."""
        self._pool.shutdown(cancel_futures=True)
        self._live.close()

    def advance(self, value: str) -> Iterator[Feed]:
        """Run on to the node that makes `value`; for each feed, all values live there, `value` among them.

        All feeds must be taken before the next call.

        Raises:
            KeyError: no node makes `value`, or it lies behind and nothing that is left reads it.
            InputError: onnxruntime refuses the stage.
        """
        return map(self.towards(value), range(len(self._live)))

    def towards(self, value: str) -> Callable[[int], Feed]:
        """`advance` for the feed of a number; each must be asked for once, in any order, in any thread.

        Raises:
            KeyError, InputError: as `advance`.
        """
        begun, self._begun = self._begun, None
        if begun is not None and begun[0] == value:
            return begun[1]
        nodes = list(self._model.graph)
        stop = self._position(nodes, value)
        if stop <= self._done or not len(self._live):
            return partial(self._again, value)
        wanted = self._live_after(nodes, stop) | {value}
        part = nodes[self._done : stop]
        opened = self._open(part, self._live.get(0), [v for v in made_by(part) if v in wanted])
        self._done = stop

        def step(number: int) -> Feed:
            feed = self._live.get(number)
            live = {n: a for n, a in feed.items() if n in wanted} | run(opened, feed)
            self._live.put(number, live)
            return live

        return step

    def begin(self, value: str) -> None:
        """Go `towards` `value`, which must be what is asked for next, in a thread of its own until it is asked for.

        Raises:
            KeyError, InputError: as `advance`.
        """
        step = self.towards(value)
        ahead = [self._pool.submit(step, number) for number in range(len(self._live))]
        self._begun = value, lambda number: step(number) if ahead[number].cancel() else ahead[number].result()

    def _open(self, part: Sequence[ir.Node], feed: Feed, fetched: Sequence[str]) -> Session:
        if not storage.is_large(self._model.graph):
            return session(stage(self._model, part, feed, fetched, None), threads=self._threads, spin=False)
        with tempfile.TemporaryDirectory(prefix="sparsify-", ignore_cleanup_errors=True) as folder:
            proto = stage(self._model, part, feed, fetched, Path(folder))
            return open_skeleton(Skeleton(proto, Path(folder), scratch=True), threads=self._threads, spin=False)

    def _again(self, value: str, number: int) -> Feed:
        feed = self._live.get(number)
        if value not in feed:
            raise KeyError(value)
        return feed

    def _position(self, nodes: Sequence[ir.Node], value: str) -> int:
        """How many nodes must have run for `value` to exist."""
        if any(v.name == value for v in self._model.graph.inputs):
            return 0
        for number, node in enumerate(nodes):
            if any(v.name == value for v in node.outputs):
                return number + 1
        raise KeyError(value)

    def _live_after(self, nodes: Sequence[ir.Node], stop: int) -> set[str]:
        """Values that nodes from `stop` on read."""
        return set().union(*(read_by(node) for node in nodes[stop:])) if stop < len(nodes) else set()


class _Kept:
    """Feeds, in memory up to a limit and in files beyond."""

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
