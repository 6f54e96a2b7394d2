"""The textual form of a pipeline.

    pipeline = pass *( "," pass )
    pass     = name [ "{" [ option *( "," option ) ] "}" ]
    option   = name "=" value          ; a value is anything without , { } =

Space around names, values and signs means nothing. An error shows the text with a caret under the culprit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NoReturn

from sparsify import passes
from sparsify.errors import UsageError
from sparsify.rewrite import Pass

_WHERE = "--passes"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_VALUE = re.compile(r"[^,{}=]*")


def parse(text: str) -> tuple[Pass, ...]:
    """The passes that `text` spells, in order.

    Raises:
        UsageError: the text breaks the grammar, or names a pass, an option or a value that does not exist.
    """
    return _Parser(text).pipeline()


def to_text(pipeline: Sequence[Pass]) -> str:
    """The text that `parse` reads back as `pipeline`."""
    return ",".join(map(str, pipeline))


class _Parser:
    """Recursive descent over `text`; `at` is the position reached."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def pipeline(self) -> tuple[Pass, ...]:
        found = [self.one_pass()]
        while self.skip(","):
            found.append(self.one_pass())
        if self.at < len(self.text):
            self.fail("expected `,` and another pass, or the end", self.at)
        return tuple(found)

    def one_pass(self) -> Pass:
        start, name = self.word(_NAME, "the name of a pass")
        options: dict[str, str] = {}
        spans: dict[str, int] = {}
        opened = self.at
        if self.skip("{") and not self.skip("}"):
            self.option(options, spans)
            while self.skip(","):
                self.option(options, spans)
            if not self.skip("}"):
                self.fail(
                    "expected `,` or `}`" if self.at < len(self.text) else "this `{` is never closed",
                    self.at if self.at < len(self.text) else opened,
                )
        try:
            kind = passes.resolve(name)
        except UsageError as error:
            self.fail(error.what, start, len(name), error.hint)
        return self.build(kind, options, spans, start)

    def option(self, options: dict[str, str], spans: dict[str, int]) -> None:
        start, name = self.word(_NAME, "the name of an option")
        if not self.skip("="):
            self.fail(f"expected `=` and a value after `{name}`", self.at)
        at, value = self.word(_VALUE, "a value")
        if not value:
            self.fail(f"option `{name}` has no value", at)
        if name in options:
            self.fail(f"option `{name}` is given twice", start, len(name))
        options[name], spans[name] = value, start

    def build(self, kind: type[Pass], options: dict[str, str], spans: dict[str, int], start: int) -> Pass:
        """The pass; what it says against an option is shown at that option."""
        try:
            return kind.from_options(options)
        except (UsageError, ValueError) as error:
            what, hint = _said(error)
            at, length = start, self.at - start
            for name, value in options.items():
                if _refuses(kind, {name: value}, what):
                    at, length = spans[name], len(name) + 1 + len(value)
                    break
            self.fail(what, at, length, hint)

    def skip(self, sign: str) -> bool:
        """Step over space and `sign`, if it stands here."""
        self.space()
        if not self.text.startswith(sign, self.at):
            return False
        self.at += len(sign)
        return True

    def word(self, pattern: re.Pattern[str], wanted: str) -> tuple[int, str]:
        """Step over space and a match of `pattern`: where it starts, and what it is."""
        self.space()
        if (match := pattern.match(self.text, self.at)) is None:
            self.fail(f"expected {wanted}", self.at)
        self.at = match.end()
        return match.start(), match.group().strip()

    def space(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def fail(self, what: str, at: int, length: int = 1, hint: str = "") -> NoReturn:
        """Raise with the text and carets under the `length` characters from `at`."""
        shown = self.text.expandtabs(1).replace("\n", " ")
        picture = f"  {shown}\n  {' ' * at}{'^' * max(length, 1)}"
        hint = hint or 'the grammar is "name{option=value,...},name"; `sparsify passes` lists the names'
        raise UsageError(what, where=_WHERE, hint=f"{hint}\n\n{picture}")


def _said(error: UsageError | ValueError) -> tuple[str, str]:
    return (error.what, error.hint) if isinstance(error, UsageError) else (str(error), "")


def _refuses(kind: type[Pass], options: dict[str, str], what: str) -> bool:
    """Whether these options alone bring up the same complaint."""
    try:
        kind.from_options(options)
    except (UsageError, ValueError) as error:
        return _said(error)[0] == what
    return False
