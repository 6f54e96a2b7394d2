"""Work on all cores, the same numbers whatever their number: whole tasks side by side, each with a BLAS of one thread.

BLAS's own threads meet at every step of a factorisation and wait busily for each other. Measured on two cores of AMD
Zen 3 that others used too: a Cholesky factorisation of 1536 x 1536 took 0.03 s with one thread and 1.7 s with two, a
product of 384 x 384 matrices 2 ms and 20 ms.

Where other machines were called in (`engines`), tasks that say so go there instead: a pickled function and the items
that it is for. Each task is all that a worker needs, so that one that dies costs time and nothing else.
"""

from __future__ import annotations

import pickle
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from threading import Lock
from typing import Any, TypeVar

import joblib
from threadpoolctl import threadpool_limits

from sparsify.errors import UsageError
from sparsify.machine import threads
from sparsify.versions import mathematics

T = TypeVar("T")
R = TypeVar("R")

TASKS_A_WORKER = 2  # more would level out better and send the function more often


@dataclass(frozen=True)
class Engine:
    """Other machines.

    Attributes:
        where: what the user called them.
        workers: how many tasks they do at once, now.
        send: a `joblib.Parallel`: starts `joblib.delayed` calls, iterates over what they return, in their order.
        explain: what is to be raised for an exception of `send`.
    """

    where: str
    workers: Callable[[], int]
    send: Callable[[Iterable[Any]], Iterable[Any]]
    explain: Callable[[Exception], Exception]


engine: ContextVar[Engine | None] = ContextVar("engine", default=None)
_called_in: ContextVar[bool] = ContextVar("called in", default=False)  # this is a task on another machine

_lock = Lock()
_holders: list[Any] = []  # who wants one thread; the first of them holds the limits


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """While it lasts, BLAS runs each call in the thread that makes it. Threads of a process may ask side by side."""
    with _lock:
        _holders.append(_holders[0] if _holders else threadpool_limits(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _lock:
            limits = _holders.pop()
            if not _holders:
                limits.restore_original_limits()


def here() -> bool:
    """Whether all work is done by this process."""
    return _others() is None


def in_order(function: Callable[[T], R], items: Iterable[T], count: int = 0) -> Iterator[R]:
    """As `in_threads`, on other machines where these were called in.

    Args:
        function: looks at its item alone, and can be pickled. What it carries is sent with each task.
        items: as of `in_threads`, several ahead.
        count: how many items there are, if that is known: they then share few tasks.
    """
    others = None if count == 1 else _others()
    return in_threads(function, items) if others is None else _sent(others, function, items, count)


def in_threads(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`function` of each of `items`, in their order, as many at once as there are cores.

    `items` are taken in the calling thread, one ahead of what is being worked on: they may be computed meanwhile.
    """
    if _called_in.get():  # whoever started the workers decided how many work side by side
        yield from map(function, items)
        return
    workers = threads()
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _others() -> Engine | None:
    """Who else does work; None where that would be fewer than two."""
    others = engine.get()
    return others if others is not None and others.workers() > 1 else None


def _sent(others: Engine, function: Callable[[T], R], items: Iterable[T], count: int) -> Iterator[R]:
    """A round of tasks at a time, the items of which are taken while the one before is worked on."""
    payload = pickle.dumps(function, pickle.HIGHEST_PROTOCOL)
    tasks = max(others.workers(), 1) * TASKS_A_WORKER
    size = -(-count // tasks) or 1
    left = iter(items)
    coming: Iterable[list[R]] = ()
    try:
        while chunks := [chunk for _ in range(tasks) if (chunk := [*islice(left, size)])]:
            yield from _received(others, coming)
            coming = _begun(others, [call(payload, chunk) for chunk in chunks])
        yield from _received(others, coming)
    finally:
        with warnings.catch_warnings():  # whoever takes no more results knows that they are lost
            warnings.simplefilter("ignore")
            if isinstance(coming, Iterator):
                coming.close()  # type: ignore[attr-defined]


def _begun(others: Engine, calls: list[Any]) -> Iterable[list[Any]]:
    try:
        return others.send(calls)
    except Exception as error:
        raise others.explain(error) from error


def _received(others: Engine, coming: Iterable[list[R]]) -> Iterator[R]:
    results = iter(coming)
    while True:
        try:
            found = next(results, None)
        except Exception as error:
            raise others.explain(error) from error
        if found is None:
            return
        yield from found


def call(payload: bytes, items: list[Any]) -> Any:
    """A task of `Engine.send`: `items` for the pickled function.

    All of it is bytes: engines look into other arguments, and put them where they are lost with a worker.
    """
    return joblib.delayed(_run)(payload, pickle.dumps(items, pickle.HIGHEST_PROTOCOL), mathematics())


def _run(payload: bytes, items: bytes, needed: dict[str, str]) -> list[Any]:
    """On another machine: the results for `items`.

    Raises:
        UsageError: this machine computes with other versions.
    """
    import scipy.linalg  # noqa: F401 its BLAS must be there to be told about threads

    here = mathematics()
    others = [name for name in needed if here.get(name) != needed[name]]
    if others:
        told = ", ".join(f"{name} {here.get(name)} instead of {needed[name]}" for name in others)
        raise UsageError(
            f"a worker has {told}", where="--parallel", hint="install the same versions on every worker, and here"
        )
    with _lock:
        function = _loaded(payload)
    token = _called_in.set(True)
    try:
        with one_blas_thread():
            return [function(item) for item in pickle.loads(items)]
    finally:
        _called_in.reset(token)


@lru_cache(maxsize=1)
def _loaded(payload: bytes) -> Callable[[Any], Any]:
    """The function; the next task often needs the same, and what it has worked out by then."""
    function: Callable[[Any], Any] = pickle.loads(payload)
    return function
