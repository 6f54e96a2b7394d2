"""What went wrong, where, and a hint. Bugs are not caught here: they are allowed to fly."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitStatus(IntEnum):
    """Exit codes of the command line; other programs rely on them."""

    OK = 0
    REFUSED = 1  # the verdict is no: drift over budget, or nothing gained under --strict
    USAGE = 2  # the command line cannot be understood, or what it asks for cannot be written
    BAD_INPUT = 3  # the model or the data cannot be used
    BUG = 4  # ours


_LONGEST = 600  # characters of a sentence that quotes what a file says


def printable(text: str) -> str:
    """`text` on one line and without what a terminal would obey: a model's author chose its names."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 2 :]}"  # what is wrong stands behind the name
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class SparsifyError(Exception):
    """An error that is the user's to solve.

    Attributes:
        what: one sentence, lower case, literals in backticks.
        where: file, node, option or pass that it is about; may be empty.
        hint: what to do about it; may be empty.
    """

    status: ClassVar[ExitStatus] = ExitStatus.BUG

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = printable(what), printable(where), hint
        super().__init__(str(self))

    def __str__(self) -> str:
        head = f"{self.what} ({self.where})" if self.where else self.what
        return f"{head}\n\nhint: {self.hint}" if self.hint else head


class UsageError(SparsifyError):
    """An option, a pipeline or a budget that makes no sense."""

    status = ExitStatus.USAGE


class InputError(SparsifyError):
    """A model or data file that cannot be used."""

    status = ExitStatus.BAD_INPUT
