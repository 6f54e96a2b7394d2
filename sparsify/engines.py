"""Other machines for `parallel.in_order`: a Dask scheduler or a Ray cluster, through joblib's backends for them.

Who listens at the other end runs pickled code and sends pickled results: it is trusted like this very program.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pickle import dumps
from typing import Any

import joblib

from sparsify import parallel
from sparsify.errors import UsageError
from sparsify.parallel import Engine

DISTRIBUTION = "sparsify-onnx"
PATIENCE = 10  # s for a scheduler to answer, and for it to have a worker
_LOOK = 0.5  # s between two looks at what Dask gave up on
_FAREWELL = 2  # s for a scheduler to say goodbye
_ENOUGH = "1TiB"  # of tasks before Dask warns: it would have them made from files that all workers see

_AGAIN = {"max_restarts": -1, "max_task_retries": 3}  # of Ray's workers: one that died is started, and does its task

_NO_ANSWER = (OSError, TimeoutError, asyncio.TimeoutError)  # the last is a class of its own up to Python 3.10


@contextmanager
def called_in(where: str | None) -> Iterator[None]:
    """While it lasts, work that is worth it goes to the machines at `where`; nothing changes where that is None.

    Args:
        where: `dask://HOST:PORT` of a scheduler, or `ray://HOST:PORT` of a cluster.

    Raises:
        UsageError: no such place, nobody answers there, the package for it is missing, or workers have other versions.
            Inside: the machines are lost.
    """
    if where is None:
        yield
        return
    scheme, _, address = where.partition("://")
    if scheme not in _ENGINES or not _is_address(address):
        raise UsageError(
            f"`{where}` is no place to work at", where="--parallel", hint="dask://HOST:PORT, or ray://HOST:PORT"
        )
    with _ENGINES[scheme](where, address) as found:
        try:
            # One task in advance: what keeps workers from working is better known now than after hours.
            [*found.send([parallel.call("len", dumps(len), [()])])]
        except Exception as error:
            raise found.explain(error) from error
        token = parallel.engine.set(found)
        try:
            yield
        finally:
            parallel.engine.reset(token)


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 2**16 and not set(host) & set("/@ ")


@contextmanager
def _dask(where: str, address: str) -> Iterator[Engine]:
    distributed = _package("distributed", where, "sparsify-onnx[dask]")
    dask = _package("dask", where, "sparsify-onnx[dask]")
    # A lost worker or scheduler is told in one sentence, or does not matter: no need for tracebacks on stderr.
    with _only_critical("distributed"), dask.config.set({"distributed.admin.large-graph-warning-threshold": _ENOUGH}):
        try:
            client = distributed.Client(f"tcp://{address}", timeout=PATIENCE, set_as_default=False)
        except _NO_ANSWER as error:
            raise _silent(where, "start one with `dask scheduler`, or check the address") from error
        with _watched(client) as lost, joblib.parallel_config("dask", client=client):
            explain = partial(_explained, where=where, package="distributed", lost=lost)
            try:
                client.wait_for_workers(1, timeout=PATIENCE)
                # A task of ours that a worker cannot even read costs Dask that worker, one after the other.
                client.run(version, DISTRIBUTION)
            except ImportError as error:
                raise explain(error) from error
            except _NO_ANSWER as error:
                hint = f"start some with `dask worker tcp://{address}`"
                raise UsageError("the scheduler has no workers", where=f"--parallel {where}", hint=hint) from error
            yield Engine(
                where,
                partial(_threads, client, where),
                # One for each piece of work: it asks how many workers there are by then.
                lambda calls: joblib.Parallel(n_jobs=-1, batch_size=1, pre_dispatch="all", return_as="generator")(
                    calls
                ),
                explain,
                partial(_on_every_worker, client),
            )


@contextmanager
def _ray(where: str, address: str) -> Iterator[Engine]:
    ray = _package("ray", where, "sparsify-onnx[ray]")
    _package("ray.util.joblib", where, "sparsify-onnx[ray]").register_ray()
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()  # Ray itself would try for half a minute
        ray.init(address=f"ray://{address}", logging_level=logging.ERROR)
    except _NO_ANSWER as error:
        raise _silent(where, "check that the cluster's client server listens there") from error
    try:
        # One for all of the work: its actors take seconds to start.
        with (
            warnings.catch_warnings(),
            joblib.parallel_config("ray", ray_remote_args=_AGAIN),
            joblib.Parallel(n_jobs=-1, batch_size=1, pre_dispatch="all") as send,
        ):
            warnings.filterwarnings("ignore", message="More than")  # so many bytes in messages, which are meant
            explain = partial(_explained, where=where, package="ray", lost=[])
            yield Engine(
                where,
                lambda: int(joblib.effective_n_jobs(-1)),
                send,
                explain,
                lambda name, payload: partial(ray.get, ray.put(payload)),  # one copy a machine
            )
    finally:
        ray.shutdown()


_ENGINES: dict[str, Callable[[str, str], AbstractContextManager[Engine]]] = {"dask": _dask, "ray": _ray}


@contextmanager
def _watched(client: Any) -> Iterator[list[BaseException]]:
    """What Dask gave up on. joblib (1.4 to 1.6) waits for it forever, unless the client is closed; at the end it is.

    That is what is done: tasks catch exceptions of their own, so a task that failed all the same never got to run.
    """
    lost: list[BaseException] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK):
            lost.extend(state.exception for state in [*client.futures.values()] if state.status == "error")
            if lost:
                _close(client)
                return

    watcher = threading.Thread(target=look, name="sparsify-watch", daemon=True)
    watcher.start()
    try:
        yield lost
    finally:
        ended.set()
        watcher.join()
        _close(client)


def _close(client: Any) -> None:
    with suppress(*_NO_ANSWER):  # of a scheduler that is gone
        client.close(timeout=_FAREWELL)


def _on_every_worker(client: Any, name: str, payload: bytes) -> None:
    """Keep it there; who was lost meanwhile, or comes later, will tell."""
    with suppress(*_NO_ANSWER):  # of the scheduler; the next task says so
        client.run(parallel.keep, name, payload, on_error="ignore")


def _threads(client: Any, where: str) -> int:
    """Of all workers."""
    try:
        return sum(client.ncores().values())
    except _NO_ANSWER as error:
        raise _lost(where) from error


def _explained(error: Exception, *, where: str, package: str, lost: list[BaseException]) -> Exception:
    """Of the engine's own troubles one sentence; what tasks raise is as it was."""
    first = lost[0] if lost else error
    if type(first).__name__ == "KilledWorker":
        return UsageError(
            "a task was given up, every worker that tried it died",
            where=f"--parallel {where}",
            hint="give workers more memory, or fewer threads each; the workers' logs say more",
        )
    if lost or isinstance(error, ImportError):
        return UsageError(
            f"workers cannot do the work: {type(first).__name__}: {first}",
            where=f"--parallel {where}",
            hint="install sparsify-onnx on every worker, the same version as here",
        )
    if type(error).__module__.partition(".")[0] == package or isinstance(error, TimeoutError):  # of joblib: no workers
        return _lost(where)
    return error


def _lost(where: str) -> UsageError:
    return UsageError(
        "the connection to the other machines was lost",
        where=f"--parallel {where}",
        hint="run it again: layers that are done are kept",
    )


def _package(name: str, where: str, requirement: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        hint = f"pip install '{requirement}'"
        raise UsageError(f"this needs the package `{name}`", where=f"--parallel {where}", hint=hint) from error


def _silent(where: str, hint: str) -> UsageError:
    return UsageError(f"nobody answers within {PATIENCE} s", where=f"--parallel {where}", hint=hint)


@contextmanager
def _only_critical(package: str) -> Iterator[None]:
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == package]
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
