"""Feeds from a Python function that somebody names: `MODULE:FUNCTION`, looked for as `python -m` would.

The function is called without arguments and returns or yields feeds: mappings from input names to arrays, or to what
NumPy makes arrays of. Naming it is asking for its code to be run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from sparsify.data import functions
from sparsify.data.feeds import Feed, FileFeed
from sparsify.data.reading import Meter
from sparsify.errors import InputError

_HINT = "it takes no arguments and yields {input name: array}; --debug shows where it fails"


def read(name: str, meter: Meter, *, limit: int | None = None) -> list[Feed]:
    """The feeds of the function `MODULE:FUNCTION`, the first `limit` of them.

    Raises:
        UsageError: no such module or function.
        InputError: it fails, or what it gives are no feeds.
    """
    missing = f"there is neither a file `{name}` nor a module `{{module}}`"
    function = functions.find(name, name, missing=missing, hint=_HINT)
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
        raise functions.failed(name, error, _HINT) from error
    if not found:
        raise InputError("it gives no feed", where=name, hint=_HINT)
    return found


def _iterated(given: object, name: str) -> Iterator[Any]:
    if not isinstance(given, Iterable) or isinstance(given, Mapping):
        raise InputError(f"it gives a `{type(given).__name__}`, not feeds", where=name, hint=_HINT)
    return iter(given)
