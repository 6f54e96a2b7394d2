"""sparsify passes"""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Annotated, get_type_hints

import typer

from sparsify.cli import talk

if TYPE_CHECKING:
    from sparsify.rewrite import Pass


def run(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The pass to explain.", show_default=False)
    ] = None,
) -> None:
    """List the passes, or explain one."""
    from sparsify import passes as registry
    from sparsify.report import Table

    if name is None:
        rows = [(each, _summary(registry.resolve(each))) for each in registry.PASSES]
        talk.show_table(Table("Passes", ("name", "what it does"), tuple(rows)))
        return
    kind = registry.resolve(name)
    print(f"{name}\n\n{inspect.getdoc(kind) or ''}\n")
    if options := _options(kind):
        talk.show_table(Table("Options", ("option", "type", "default"), options))


def _summary(kind: type[Pass]) -> str:
    return (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")


def _options(kind: type[Pass]) -> tuple[tuple[str, str, str], ...]:
    types = get_type_hints(kind)
    return tuple((f.name, _type_name(types[f.name]), str(f.default)) for f in dataclasses.fields(kind))


def _type_name(kind: object) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)
