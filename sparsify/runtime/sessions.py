"""Opening and running sessions; onnxruntime's complaints become errors with a place and a hint."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import onnx_ir as ir
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native_errors

from sparsify import kernels, storage
from sparsify.data import Array, Feed
from sparsify.errors import InputError
from sparsify.ops import DOMAIN
from sparsify.runtime.refusals import explain
from sparsify.runtime.source import Skeleton, Source, nodes_of, opened, scratch
from sparsify.runtime.staged import Staged

Session: TypeAlias = onnxruntime.InferenceSession

_FOLDER_OPTION = "session.model_external_initializers_file_folder_path"
_TAKES_FOLDERS = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 21)
_GLANCE_S = 0.05  # between two looks at how long a run has taken
_FATAL = 4  # onnxruntime's log severity: what is less is raised too
_REFUSALS = tuple(
    getattr(native_errors, name)
    for name in (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NoModel",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
    )
)


def session(
    model: Source,
    *,
    threads: int | None = None,
    native: bool = True,
    spin: bool = True,
    deterministic: bool = False,
) -> Session:
    """A CPU session. A path is opened by onnxruntime itself, whatever its size; a large `onnx_ir.Model` runs in stages.

    Args:
        model: in any form; left as it is.
        threads: inside an operator; onnxruntime's own choice when None. Operators never run in parallel.
        native: let our operators run on our kernels, where these are built.
        spin: let threads wait for work busily, which is faster; not where something else computes between two runs.
        deterministic: keep onnxruntime from kernels whose results may differ between two runs.

    Raises:
        InputError: no such file, not ONNX, or a model that onnxruntime refuses.
    """
    if isinstance(model, (str, Path)):
        if not Path(model).is_file():
            raise InputError("no such file", where=str(model))
        return _create(str(model), _options(threads, native, spin, deterministic), str(model))
    if isinstance(model, ir.Model) and storage.is_large(model.graph):
        return Staged(model, lambda stage: _open(stage, _options(threads, native, spin, deterministic, prepack=False)))
    with opened(model) as skeleton:
        return open_skeleton(skeleton, threads=threads, native=native, spin=spin, deterministic=deterministic)


def open_skeleton(
    skeleton: Skeleton,
    *,
    threads: int | None = None,
    native: bool = True,
    spin: bool = True,
    deterministic: bool = False,
) -> Session:
    """A session of `skeleton`; see `session`."""
    return _open(skeleton, _options(threads, native, spin, deterministic))


def calls_native(model: Source) -> bool:
    """Whether a session of `model` runs our kernels on this machine: it has our operators, and they are built."""
    if not kernels.register(onnxruntime.SessionOptions()):
        return False
    with opened(model) as skeleton:
        return any(node.domain == DOMAIN for node in nodes_of(skeleton.proto.graph))


def run(session: Session, feed: Mapping[str, Array], *, limit_s: float | None = None) -> Feed:
    """All outputs by name. Keys that the model does not take are left out.

    Args:
        session: of one model.
        feed: its inputs.
        limit_s: seconds of processor time of the calling thread after which onnxruntime is stopped, between two nodes;
            by the clock where the system does not count them. Not for models that run in stages.

    Raises:
        InputError: an input is missing, onnxruntime fails on this feed, or does not come to an end.
    """
    inputs = session_inputs(session, feed)
    with input_errors(str(getattr(feed, "source", "a feed"))):
        if limit_s is None or isinstance(session, Staged):
            values = session.run(None, inputs)
        else:
            values = _run_within(session, inputs, limit_s)
    return dict(zip((o.name for o in session.get_outputs()), values, strict=True))


def _run_within(session: Session, inputs: Feed, limit_s: float) -> list[Any]:
    options = onnxruntime.RunOptions()
    ended = threading.Event()
    now = _clock()
    end = now() + limit_s

    def watch() -> None:
        while (left := end - now()) > 0:
            if ended.wait(max(left, _GLANCE_S)):  # by the clock it takes as long, or longer
                return
        options.terminate = True

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        values: list[Any] = session.run(None, inputs, options)
    except _REFUSALS:
        if options.terminate:
            what = f"the model does not come to an end within {limit_s:.0f} s of processor time"
            raise InputError(what, where="a feed") from None
        raise
    finally:
        ended.set()
        watcher.join()
    return values


def _clock() -> Callable[[], float]:
    """Processor time of the calling thread for others to read: this thread computes, too, while a session runs."""
    if not hasattr(time, "pthread_getcpuclockid"):  # macOS, Windows
        return time.monotonic
    return partial(time.clock_gettime, time.pthread_getcpuclockid(threading.get_ident()))


def session_inputs(session: Session, feed: Mapping[str, Array]) -> Feed:
    """The part of `feed` that `session` takes.

    Raises:
        InputError: an input is missing.
    """
    names = [i.name for i in session.get_inputs()]
    for name in names:
        if name not in feed:
            raise InputError(f"input `{name}` is missing", hint=f"the feed has {', '.join(feed) or 'no keys'}")
    return {name: feed[name] for name in names}


@contextmanager
def input_errors(where: str) -> Iterator[None]:
    """Turn what onnxruntime refuses into an InputError about `where`.

    Its binding raises a plain RuntimeError for types that it cannot hand over.
    """
    try:
        yield
    except (*_REFUSALS, RuntimeError) as error:
        text = " ".join(str(error).split())
        if (explained := explain(text)) is not None:
            raise InputError(explained[0], where=where, hint=explained[1]) from error
        raise InputError(f"onnxruntime refuses it: {text}", where=where) from error


def _open(skeleton: Skeleton, options: Any) -> Session:
    serialized = skeleton.proto.SerializeToString()
    if skeleton.folder is None:
        return _create(serialized, options, "the model")
    if not skeleton.scratch:  # not ours to write into
        if not _TAKES_FOLDERS:
            return _create_beside(skeleton.folder, serialized, options)
        options.add_session_config_entry(_FOLDER_OPTION, str(skeleton.folder))
        return _create(serialized, options, str(skeleton.folder))
    path = skeleton.folder / "session.onnx"
    path.write_bytes(serialized)
    return _create(str(path), options, "the model")


def _create(model: str | bytes, options: Any, where: str) -> Session:
    with input_errors(where):
        return Session(model, options, providers=["CPUExecutionProvider"])


def _create_beside(folder: Path, serialized: bytes, options: Any) -> Session:
    """For an onnxruntime that looks for data beside the model's file only: a folder of links to `folder`'s entries."""
    with scratch() as links:
        for entry in folder.iterdir():
            (links / entry.name).symlink_to(entry)
        path = links / f"{links.name}.onnx"
        path.write_bytes(serialized)
        return _create(str(path), options, str(folder))


def _options(threads: int | None, native: bool, spin: bool, deterministic: bool, prepack: bool = True) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0: its own choice
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = deterministic
    options.log_severity_level = _FATAL
    # Workers that go on spinning after a run hold cores that the session timed next needs: with twenty sessions of
    # 2 threads in turn on 2 cores, a layer of 3 ms took 50.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if not prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if not spin:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if native:
        kernels.register(options)
    return options
