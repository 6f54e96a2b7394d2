"""Work on all cores, the same numbers whatever their number: whole tasks side by side, each with a BLAS of one thread.

BLAS's own threads meet at every step of a factorisation and wait busily for each other. Measured on two cores of AMD
Zen 3 that others used too: a Cholesky factorisation of 1536 x 1536 took 0.03 s with one thread and 1.7 s with two, a
product of 384 x 384 matrices 2 ms and 20 ms.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from sparsify.machine import threads

T = TypeVar("T")
R = TypeVar("R")


def one_blas_thread() -> AbstractContextManager[Any]:
    """While it lasts, BLAS runs each call in the thread that makes it."""
    found: AbstractContextManager[Any] = threadpool_limits(limits=1, user_api="blas")
    return found


def in_order(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`function` of each of `items`, in their order, as many at once as there are cores; it only looks at its item."""
    return in_threads(function, items)


def in_threads(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """As `in_order`, for what needs this process: sessions, files, caches.

    `items` are taken in the calling thread, one ahead of what is being worked on: they may be computed meanwhile.
    """
    workers = threads()
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
