"""Functions that somebody names: `MODULE:FUNCTION`, looked for as `python -m` would. Naming one runs its module."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from sparsify.errors import InputError, UsageError


def find(name: str, where: str, *, missing: str, hint: str) -> Any:
    """The function `name`.

    Args:
        name: `MODULE:FUNCTION`.
        where: what asked for it, for errors.
        missing: the sentence for where there is no such module; may hold `{module}`.
        hint: what the function is called with, for where its module fails.

    Raises:
        UsageError: no such module, or no function of that name in it.
        InputError: importing the module fails.
    """
    module, _, attribute = name.partition(":")
    if "" not in sys.path and "." not in sys.path:
        sys.path.insert(0, "")  # the current folder, as `python -m` has it
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise failed(where, error, hint) from error  # the module is there, but not what it needs
        say = "a function is MODULE:FUNCTION, and MODULE is looked for here and where Python looks"
        raise UsageError(missing.replace("{module}", module), where=where, hint=say) from error
    except Exception as error:  # not our code
        raise failed(where, error, hint) from error
    function = getattr(found, attribute, None)
    if not callable(function):
        raise UsageError(f"the module `{module}` has no function `{attribute}`", where=where, hint="check the spelling")
    return function


def failed(where: str, error: Exception, hint: str) -> InputError:
    """What is said of code that is not ours and raised `error`."""
    return InputError(f"it fails: {type(error).__name__}: {error}", where=where, hint=hint)
