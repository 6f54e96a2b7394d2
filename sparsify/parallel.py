"""Work on all cores, the same numbers whatever their number: whole tasks side by side, each with a BLAS of one thread.

BLAS's own threads meet at every step of a factorisation and wait busily for each other. Measured on two cores of AMD
Zen 3 that others used too: a Cholesky factorisation of 1536 x 1536 took 0.03 s with one thread and 1.7 s with two, a
product of 384 x 384 matrices 2 ms and 20 ms.

Where other machines were called in (`engines`), tasks that say so go there instead: a pickled function and the items
that it is for. A large function goes to each worker once, apart from its tasks; one that lacks it says so, and is sent
it with the task. Nothing else is kept there, so that a worker that dies costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import pickle
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
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

TASKS_A_WORKER = 2  # more would level out better, and take more messages
BYTES_A_SECOND = 2**29  # that this process and a scheduler pass on: measured with Dask on one machine, 0.85 GB/s of CPU
_LARGE = 2**20  # bytes of a function that is sent apart from its tasks


Payload = Callable[[], bytes] | bytes | None


@dataclass(frozen=True)
class Engine:
    """Other machines.

    Attributes:
        where: what the user called them.
        workers: how many tasks they do at once, now.
        send: a `joblib.Parallel`: starts `joblib.delayed` calls, iterates over what they return, in their order.
        explain: what is to be raised for an exception of `send`.
        apart: brings a pickled function, by this name, to where workers have it (see `keep`); what tasks are sent of it
            then: nothing, or what gives it where it is called.
    """

    where: str
    workers: Callable[[], int]
    send: Callable[[Iterable[Any]], Iterable[Any]]
    explain: Callable[[Exception], Exception]
    apart: Callable[[str, bytes], Payload] = lambda name, payload: payload


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


def where_it_pays(function: Callable[[T], R], items: Iterable[T], count: int, cores: int = 1) -> Iterator[R]:
    """As `in_order`: the first item here, the others on other machines if they would be done sooner there.

    Args:
        function: as of `in_order`.
        items: as of `in_order`.
        count: how many items there are.
        cores: that one item keeps busy.
    """
    others, left = _others(), iter(items)
    if others is not None and count > 1:
        start = time.perf_counter()
        first = function(item := next(left))
        busy = cores * (time.perf_counter() - start) * (count - 1)
        yield first
        if pays(others.workers(), busy, (count - 1) * (_size(item) + _size(first)), _size(function)):
            yield from in_order(function, left)
            return
    yield from in_threads(function, left) if cores == 1 else map(function, left)


def pays(workers: int, busy: float, items: int, function: int) -> bool:
    """Whether work ends sooner elsewhere.

    Args:
        workers: how many there are.
        busy: seconds that the work takes on one core.
        items: bytes of all items, and of what is made of them.
        function: bytes of what each worker needs besides.
    """
    return busy / workers + (items + workers * function) / BYTES_A_SECOND < busy / threads()


def _size(thing: Any) -> int:
    return len(pickle.dumps(thing, pickle.HIGHEST_PROTOCOL))


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


def in_pieces(function: Callable[[slice], R], size: int, piece: int) -> Iterator[R]:
    """`function` of slices that make up `size` things, `piece` of them each, by `in_threads`; of one slice here."""
    pieces = [slice(at, min(at + piece, size)) for at in range(0, size, piece)] or [slice(0, 0)]
    return in_threads(function, pieces) if len(pieces) > 1 else map(function, pieces)


def _others() -> Engine | None:
    """Who else does work; None where that would be fewer than two."""
    others = engine.get()
    return others if others is not None and others.workers() > 1 else None


def _sent(others: Engine, function: Callable[[T], R], items: Iterable[T], count: int) -> Iterator[R]:
    """A round of tasks at a time, the items of which are taken while the one before is worked on."""
    payload = pickle.dumps(function, pickle.HIGHEST_PROTOCOL)
    name = hashlib.sha256(payload).hexdigest()
    sent = others.apart(name, payload) if len(payload) >= _LARGE else payload
    tasks = max(others.workers(), 1) * TASKS_A_WORKER
    size = -(-count // tasks) or 1
    left = iter(items)
    coming: Iterable[list[R] | None] = ()
    before: list[list[T]] = []

    def received() -> Iterator[R]:
        for chunk, found in zip(before, _received(others, coming), strict=True):
            if found is None:  # of a worker that came later, or has had other work since
                (found,) = _received(others, _begun(others, [call(name, payload, chunk)]))
            yield from found or ()

    try:
        while chunks := [chunk for _ in range(tasks) if (chunk := [*islice(left, size)])]:
            yield from received()
            coming = _begun(others, [call(name, sent, chunk) for chunk in chunks])
            before = chunks
        yield from received()
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


def _received(others: Engine, coming: Iterable[T]) -> Iterator[T]:
    results = iter(coming)
    while True:
        try:
            found = next(results, _END)
        except Exception as error:
            raise others.explain(error) from error
        if found is _END:
            return
        yield found  # type: ignore[misc]


def call(name: str, payload: Payload, items: list[Any]) -> Any:
    """A task of `Engine.send`: `items` for the pickled function, which workers have by this name if it is not given.

    All of it is bytes: engines look into other arguments, and put them where they are lost with a worker.
    """
    return joblib.delayed(_run)(name, payload, pickle.dumps(items, pickle.HIGHEST_PROTOCOL), mathematics())


def _run(name: str, payload: Payload, items: bytes, needed: dict[str, str]) -> list[Any] | None:
    """On another machine: the results for `items`; None if the function is not there.

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
    function = _function(name, payload)
    if function is None:
        return None
    token = _called_in.set(True)
    try:
        with one_blas_thread():
            return [function(item) for item in pickle.loads(items)]
    finally:
        _called_in.reset(token)


def keep(name: str, payload: bytes) -> None:
    """On another machine: have the pickled function at hand; not loaded yet, which may take long."""
    with _lock:
        _payloads.clear()
        _payloads[name] = payload


def _function(name: str, payload: Payload) -> Callable[[Any], Any] | None:
    """The function; the next task often needs the same, and what it has worked out by then."""
    with _lock:
        if name not in _functions:
            found = payload() if callable(payload) else payload or _payloads.pop(name, None)
            if found is None:
                return None
            _functions.clear()
            _functions[name] = pickle.loads(found)
        return _functions[name]


_payloads: dict[str, bytes] = {}  # one at most, by name, on another machine
_functions: dict[str, Callable[[Any], Any]] = {}  # the same
_END = object()
