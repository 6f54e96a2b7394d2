"""Running a model in stages, so that what its early layers compute is computed once however often it is stopped.

A stage ends right after the node that makes a value somebody asked for. What the rest of the model still needs (the
live values at that cut) is kept for each feed and is what the next stage starts from. Between stages the model may be
edited, as long as only nodes change that have not run yet: this is how layers are pruned in order, each for the inputs
that the pruned layers before it really give.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from sparsify import machine, storage
from sparsify.data import Array, Feed
from sparsify.runtime.kept import Kept
from sparsify.runtime.sessions import Session, open_skeleton, run, session
from sparsify.runtime.source import Skeleton
from sparsify.runtime.staged import made_by, read_by, stage


class Leg:
    """A part of a model, apart from it: what is live before it goes in, and what it makes comes out."""

    def __init__(self, opened: Session, threads: int | None, make: Callable[[], onnx.ModelProto] | None) -> None:
        """`make` gives the model that was `opened`; without it the leg stays on this machine."""
        self._session, self._threads, self._make = opened, threads, make
        self.can_be_sent = make is not None  # pickled
        self.reads = frozenset(v.name for v in opened.get_inputs())

    @classmethod
    def of(cls, make: Callable[[], onnx.ModelProto], threads: int | None) -> Leg:
        """Raises InputError if onnxruntime refuses what `make` gives."""
        return cls(session(make(), threads=threads, spin=False), threads, make)

    def __call__(self, feed: Feed) -> Feed:
        """What it makes of `feed`."""
        return run(self._session, feed)

    def __reduce__(self) -> tuple[Any, ...]:
        assert self._make is not None  # it can be sent
        # onnxruntime's own choice depends on the machine.
        return _leg_of, (self._make().SerializeToString(), self._threads or machine.threads())


def _leg_of(data: bytes, threads: int) -> Leg:
    return Leg.of(partial(onnx.load_model_from_string, data), threads)


@dataclass(frozen=True)
class Step:
    """`Stages.towards` a value: all of it for the feed of a number, or what goes into the leg and what comes out."""

    live: Kept
    leg: Leg
    wanted: frozenset[str]

    @property
    def can_be_sent(self) -> bool:
        """Whether other machines may take it."""
        return self.leg.can_be_sent

    def __call__(self, number: int) -> Feed:
        """Take the step; what is live after it."""
        return self.take(number, self.leg(self.live.get(number)))

    def given(self, number: int, *others: str) -> Feed:
        """What the leg reads, and what is live of `others`."""
        names = self.leg.reads.union(others)
        return {name: array for name, array in self.live.get(number).items() if name in names}

    def take(self, number: int, made: Feed) -> Feed:
        """Take the step with what the leg made elsewhere; what is live after it."""
        live = {n: a for n, a in self.live.get(number).items() if n in self.wanted} | made
        self.live.put(number, live)
        return live


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
        self._live = Kept([{n: a for n, a in feed.items() if n in names} for feed in feeds], memory)

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
        leg = self._leg(part, self._live.get(0), [v for v in made_by(part) if v in wanted])
        self._done = stop
        return Step(self._live, leg, frozenset(wanted))

    def begin(self, value: str) -> None:
        """Go `towards` `value`, which must be what is asked for next, in a thread of its own until it is asked for.

        Raises:
            KeyError, InputError: as `advance`.
        """
        step = self.towards(value)
        ahead = [self._pool.submit(step, number) for number in range(len(self._live))]
        self._begun = value, lambda number: step(number) if ahead[number].cancel() else ahead[number].result()

    def _leg(self, part: Sequence[ir.Node], feed: Feed, fetched: Sequence[str]) -> Leg:
        if not storage.is_large(self._model.graph):
            return Leg.of(partial(stage, self._model, part, feed, fetched, None), self._threads)
        with tempfile.TemporaryDirectory(prefix="sparsify-", ignore_cleanup_errors=True) as folder:
            proto = stage(self._model, part, feed, fetched, Path(folder))
            opened = open_skeleton(Skeleton(proto, Path(folder), scratch=True), threads=self._threads, spin=False)
            return Leg(opened, self._threads, None)

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
