"""Say in the model what made it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from sparsify.rewrite import Change, Event, Pass, Refusal

PREFIX = "ai.sparsify."


@dataclass(frozen=True)
class Stamp(Pass):
    """Writes provenance into the model's metadata, one property `ai.sparsify.<option>` for each option given.

    What:
        Entries of `metadata_props`; no node changes. What an earlier run wrote goes: its drift is not that of this one.
    When it fires:
        An option is given and the model does not say so yet.
    When it refuses:
        There is nothing to write.
    Mathematics:
        None.
    Cost:
        The bytes of the texts.
    Drift:
        None.
    Source:
        ONNX IR specification, "Metadata".
    """

    name: ClassVar[str] = "stamp"

    version: str = ""  # of Sparsify
    source: str = ""  # digest of the model that all this started from
    pipeline: str = ""  # textual form of the passes that ran
    budget: str = ""  # what drift was allowed
    drift: str = ""  # what drift was measured

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        given = {PREFIX + f.name: str(getattr(self, f.name)) for f in dataclasses.fields(self)}
        new = {k: v for k, v in given.items() if v}
        old = {k: v for k, v in model.metadata_props.items() if k.startswith(PREFIX)}
        if not new or new == old:
            yield Refusal("", "nothing to write: no option was given, or the model says so already")
            return
        for key in old:
            del model.metadata_props[key]
        model.metadata_props.update(new)
        yield Change("", f"wrote {', '.join(new)}", new)
