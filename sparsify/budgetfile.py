"""Budgets in a file: TOML, so that each can say why it is there. Nothing in it is executed, and it names no other file.

[[budget]]
metric = "cosine"
output = "logits"       # every output that has the metric, if not given
at_least = 0.999        # or at_most, whichever the metric wants
reason = "ranking was never tested below this"
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from sparsify.budget import METRICS, Budget
from sparsify.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUFFIX = ".toml"  # no expression ends like this: they end with a number
_KEYS = {"metric": str, "output": str, "at_least": float, "at_most": float, "reason": str}
_SIGNS = {"at_least": ">=", "at_most": "<="}
_MOST_BYTES = 1_000_000  # thousands of budgets


def is_file(text: str) -> bool:
    """Whether a budget given as `text` is the name of a file."""
    return text.strip().lower().endswith(SUFFIX)


def read(path: str | Path) -> tuple[Budget, ...]:
    """The budgets of a file, in its order; at least one.

    Raises:
        UsageError: it cannot be read, is not TOML, has a key that means nothing, or a budget that makes no sense.
    """
    where = f"budget file {path}"
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise UsageError("this is too large for a list of budgets", where=where, hint="at most 1 MB")
        found = tomllib.loads(text.decode())
    except OSError as error:
        raise UsageError(f"cannot read: {error.strerror or error}", where=where, hint="check the path") from error
    except (ValueError, RecursionError) as error:  # tomllib's and UTF-8's errors are ValueErrors
        hint = 'a budget is [[budget]] and below it metric = "cosine" and at_least = 0.99'
        raise UsageError(f"this is not TOML: {str(error) or 'nested too deep'}", where=where, hint=hint) from error
    _known(found, ("budget",), where)
    rows = found.get("budget", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        _refuse("`budget` is a list of tables", where, "write `[[budget]]` above each of them")
    if not rows:
        _refuse("there is no budget in it", where, "a budget starts with `[[budget]]`")
    budgets = tuple(_budget(row, f"{where}, budget {number}") for number, row in enumerate(rows, 1))
    seen: dict[tuple[str, str | None], int] = {}
    for number, budget in enumerate(budgets, 1):
        first = seen.setdefault((budget.metric, budget.output), number)
        if first != number:
            _refuse(f"this demands the same as budget {first}", f"{where}, budget {number}", "keep one of the two")
    return budgets


def _budget(row: Mapping[str, Any], where: str) -> Budget:
    _known(row, tuple(_KEYS), where)
    for key, value in row.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (number if _KEYS[key] is float else isinstance(value, str)):
            _refuse(f"`{key}` is a {'number' if _KEYS[key] is float else 'text'}, got {value!r}", where, "")
    bounds = [key for key in _SIGNS if key in row]
    if "metric" not in row:
        _refuse("`metric` is missing", where, f"one of {', '.join(METRICS)}")
    if len(bounds) != 1:
        _refuse("a budget has one of `at_least` and `at_most`", where, "write the worst value that is allowed")
    try:
        budget = Budget(row["metric"], float(row[bounds[0]]), row.get("output"), row.get("reason", ""))
    except UsageError as error:
        _refuse(error.what, where, error.hint)
    if _SIGNS[bounds[0]] != METRICS[budget.metric].sign:
        better, other = ("higher", "at_least") if METRICS[budget.metric].higher_is_better else ("lower", "at_most")
        _refuse(f"`{budget.metric}` is better when it is {better}", where, f"write `{other}`")
    return budget


def _known(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(keys)}"
            _refuse(f"there is no key `{key}`", where, hint)


def _refuse(what: str, where: str, hint: str) -> NoReturn:
    raise UsageError(what, where=where, hint=hint)
