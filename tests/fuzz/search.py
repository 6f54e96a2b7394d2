"""Search for inputs that `target.one_input` cannot take, guided by the lines of ours that they reach.

    python -m tests.fuzz.search [libFuzzer options] [CORPUS...]

Needs atheris (`pip install atheris`; it has wheels for some versions of Python only).
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
import random
import sys
import time
import types

import atheris

import sparsify
from tests.fuzz import target

LIMIT_S = 10.0  # of processor time an input: the clock goes on while a busy machine lets the fuzzer wait


def main() -> None:
    """Run until libFuzzer's options say stop."""
    target.prepare()
    logging.disable()
    _instrument()
    atheris.Setup(sys.argv, _one_input, custom_mutator=_mutate)
    atheris.Fuzz()


def _one_input(data: bytes) -> None:
    began = time.process_time()
    target.one_input(data)
    if (took := time.process_time() - began) > LIMIT_S:
        raise TimeoutError(f"{took:.0f} s of processor time")


def _mutate(data: bytes, limit: int, seed: int) -> bytes:
    """Three times in ten other bytes, else another model."""
    rng = random.Random(seed)
    made = None if rng.random() < 0.3 else target.mutate(data, rng)
    return bytes(atheris.Mutate(data, limit)) if made is None or len(made) > limit else made


def _instrument() -> None:
    """Let the fuzzer see which lines of ours run. Its own hook does not see modules of an editable install."""
    for _, name, _ in pkgutil.walk_packages(sparsify.__path__, "sparsify."):
        if "__main__" not in name and "lib" not in name:  # neither the command nor the native library
            importlib.import_module(name)
    ours = [module for name, module in sys.modules.items() if name.split(".")[0] == "sparsify"]
    things = [thing for module in ours for thing in vars(module).values()]
    things += [member for thing in things if isinstance(thing, type) for member in vars(thing).values()]
    for function in {id(f): f for f in things if isinstance(f, types.FunctionType)}.values():
        if function.__module__.split(".")[0] == "sparsify":
            atheris.instrument_func(function)


if __name__ == "__main__":
    main()
