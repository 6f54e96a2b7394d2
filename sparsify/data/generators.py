"""Feeds from a Python function that somebody names: `MODULE:FUNCTION`, looked for as `python -m` would.

The function is called without arguments and returns or yields feeds: mappings from input names to arrays, or to what
NumPy makes arrays of. Naming it is asking for its code to be run.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from sparsify.data.feeds import Feed, FileFeed
from sparsify.data.reading import Meter
from sparsify.errors import InputError, UsageError

_HINT = "it takes no arguments and yields {input name: array}; --debug shows where it fails"


def read(name: str, meter: Meter, *, limit: int | None = None) -> list[Feed]:
    """The feeds of the function `MODULE:FUNCTION`, the first `limit` of them.

    Raises:
        UsageError: no such module or function.
        InputError: it fails, or what it gives are no feeds.
    """
    function = _function(name)
    found: list[Feed] = []
    try:
        for index, feed in enumerate(islice(_iterated(function(), name), limit)):
            if not isinstance(feed, Mapping):
                raise InputError(f"item {index} is no mapping but a `{type(feed).__name__}`", where=name, hint=_HINT)
            arrays = {str(key): np.asarray(array) for key, array in feed.items()}
            meter.take_feed(arrays)
            found.append(FileFeed(arrays, f"{name}, feed {index}"))
    except InputError:
        raise
    except Exception as error:  # not our code
        raise _failed(name, error) from error
    if not found:
        raise InputError("it gives no feed", where=name, hint=_HINT)
    return found


def _iterated(given: object, name: str) -> Iterator[Any]:
    if not isinstance(given, Iterable) or isinstance(given, Mapping):
        raise InputError(f"it gives a `{type(given).__name__}`, not feeds", where=name, hint=_HINT)
    return iter(given)


def _function(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if "" not in sys.path and "." not in sys.path:
        sys.path.insert(0, "")  # the current folder, as `python -m` has it
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _failed(name, error) from error  # the module is there, but not what it needs
        hint = "a function is MODULE:FUNCTION, and MODULE is looked for here and where Python looks"
        raise UsageError(f"there is neither a file `{name}` nor a module `{module}`", where=name, hint=hint) from error
    except Exception as error:  # not our code
        raise _failed(name, error) from error
    function = getattr(found, attribute, None)
    if not callable(function):
        raise UsageError(f"the module `{module}` has no function `{attribute}`", where=name, hint="check the spelling")
    return function


def _failed(name: str, error: Exception) -> InputError:
    return InputError(f"it fails: {type(error).__name__}: {error}", where=name, hint=_HINT)
