"""Let libraries that may crash on a hostile model crash where it does not hurt: in a process of their own.

onnx's checker and shape inference and onnxruntime's loader are C++ that has segfaulted on crafted models before. A
child process with limits of memory and time tries them first; what a crash there would be here is an error.
"""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from sparsify.errors import InputError

# Processor time for a model of up to 1 GB; each further takes as long again. SmolLM2, 0.5 GB, takes 6 s on one core of
# an AMD Zen 3; by the clock that was 97 s once, on a machine that others kept busy.
DEADLINE_S = 60.0
PATIENCE = 10  # how many times that by the clock
_SESSION_BYTES = 2**28  # larger ones are not opened twice: that would double memory and time
_MEMORY_BYTES = 2**33  # of address space beside three copies of the model; what a library reserves is not used

_OURS = "ai.sparsify"  # `ops.DOMAIN`, which is of a floor above
_MOST_ELEMENTS = 2**33  # of a value whose shape follows from the model alone: 32 GiB of float32

_LIMITS = """
import contextlib, math, os, sys
path, memory, with_session = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1"
most, seconds, ours = int(sys.argv[4]), int(sys.argv[5]), sys.argv[6]
with contextlib.suppress(ImportError):
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
"""
# Says what it tries before it tries it. That a model is refused is no crash: it will be refused here again.
_ATTEMPTS = """
import onnx
def attempt(what, act):
    print(what, flush=True)
    try:
        act()
    except MemoryError:
        os._exit(3)
    except Exception as error:
        if "bad_alloc" in str(error) or "allocate memory" in str(error):
            os._exit(3)
attempt("onnx's checker", lambda: onnx.checker.check_model(path))
def judge(model):
    for value in model.graph.value_info:
        dims = [d.dim_value for d in value.type.tensor_type.shape.dim if d.HasField("dim_value")]
        if math.prod(dims) > most:
            print(f"the value {value.name!r} of shape {dims}", flush=True)
            os._exit(3)
def shapes():
    model = onnx.load(path, load_external_data=False)
    # Propagation of data takes the packed weights that our functions read for shapes: 70 bytes a weight.
    others = [function for function in model.functions if function.domain != ours]
    if len(others) < len(model.functions):
        judge(onnx.shape_inference.infer_shapes(model))
        del model.functions[:]
        model.functions.extend(others)
    judge(onnx.shape_inference.infer_shapes(model, data_prop=True))
attempt("onnx's shape inference", shapes)
def session():
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
if with_session:
    attempt("onnxruntime's loader", session)
os._exit(0)
"""
_OUT_OF_MEMORY = 3


def examine(path: Path, size: int, *, opens: bool = True) -> None:
    """Try the libraries on the model at `path`, once for each state of the file.

    Args:
        path: of a model that `modelio.load` accepts.
        size: bytes of it and its data.
        opens: try onnxruntime's loader, too.

    Raises:
        InputError: one of them crashes on it, runs out of memory or does not come to an end.
    """
    found = path.stat()
    if what := _failure(path.resolve(), size, opens and size < _SESSION_BYTES, (found.st_mtime_ns, found.st_ino)):
        raise InputError(what, where=str(path), hint="do not use this file with other tools either")


@lru_cache(maxsize=64)
def _failure(path: Path, size: int, opens: bool, _state: tuple[int, int]) -> str:
    """What went wrong in the child; empty if nothing did."""
    memory = _MEMORY_BYTES + 3 * size
    deadline = math.ceil(DEADLINE_S * (1 + size // 10**9))
    arguments = [str(path), str(memory), str(int(opens)), str(_MOST_ELEMENTS), str(deadline), _OURS]
    child = subprocess.Popen(
        [sys.executable, "-I", "-c", _LIMITS + _ATTEMPTS, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        said, _ = child.communicate(timeout=PATIENCE * deadline)
    except subprocess.TimeoutExpired:
        child.kill()
        said, _ = child.communicate()
        return f"{_last(said)} did not come to an end within {PATIENCE * deadline:.0f} s"
    if -child.returncode == getattr(signal, "SIGXCPU", None):
        return f"{_last(said)} did not come to an end within {deadline} s of processor time"
    if child.returncode == _OUT_OF_MEMORY:
        return f"{_last(said)} needs more than {memory / 2**30:.0f} GiB for a model of {size} bytes"
    return f"{_last(said)} crashes on this model" if child.returncode else ""


def _last(said: str) -> str:
    return (said.splitlines() or ["python"])[-1]
