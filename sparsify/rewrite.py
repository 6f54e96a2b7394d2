"""What a pass is here: a frozen dataclass on onnx_ir's in-place pass that reports what it did and what it refused.

A pass's fields are its options: they give the textual form `name{option=value,...}`, its parsing and its
printing back. The pipeline verifies the model between passes, never inside one.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias, get_type_hints

import onnx_ir as ir

from sparsify import ops, storage
from sparsify.errors import UsageError
from sparsify.graph import Linear, Unsupported, find_linear, fresh_name, node_name, opset
from sparsify.patterns import Pattern


@dataclass(frozen=True)
class Change:
    """A node was rewritten.

    Attributes:
        node: name of the node in the model the pass was given; empty when it is about the model as a whole.
        what: one short sentence for people.
        facts: what a report may want: `shape` [K, N], `format`, `sparsity`, `dense_ms`, `rewritten_ms`, ...
    """

    node: str
    what: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """A node was left as it is, and why. Attributes as in `Change`."""

    node: str
    reason: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """Something learnt about a node that was left as it is. Attributes as in `Change`."""

    node: str
    what: str
    facts: Mapping[str, Any] = field(default_factory=dict)


Event: TypeAlias = Change | Refusal | Finding


@dataclass(frozen=True)
class Choice:
    """What a search decided for a linear layer. Passes that prune or lower keep to it; see `chosen`.

    Attributes:
        format: name of the pass that is to lower the layer; empty to leave it.
        pattern: what its weight is pruned to first; None to keep the weight as it is.
    """

    format: str = ""
    pattern: Pattern | None = None

    def __str__(self) -> str:
        if self.pattern is None:
            return self.format or "left"
        return f"{self.format} {self.pattern}"

    @classmethod
    def parse(cls, text: str) -> Choice:
        """The choice that `str` gives as `text`. Raises ValueError where that is no pattern."""
        format_, _, pattern = text.partition(" ")
        return cls("" if format_ == "left" else format_, Pattern.parse(pattern) if pattern else None)


CHOICE = "choice"  # key of a node's `meta`; in memory only, never saved


def chosen(layer: Linear) -> Choice | None:
    """What a search decided for `layer`; None where there was no search, and a pass decides for itself."""
    found: Choice | None = layer.node.meta.get(CHOICE)
    return found


def _name_apart(model: ir.Model, old: Mapping[int, ir.Node]) -> None:
    """Give each node that is not of the `old` ones, by id, a name that no other has: onnxruntime wants it so."""
    here = list(model.graph.all_nodes())
    taken = {node.name or "" for node in here if id(node) in old}
    for node in here:
        if id(node) not in old and node.name:
            node.name = fresh_name(taken, node.name)


LISTENER = "listener"  # key of the model's `meta`: called with how many nodes a pass has looked at; never saved


@dataclass
class Report(ir.passes.PassResult):
    """What a pass did. `modified` is true only if the model's bytes changed."""

    changes: tuple[Change, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Pass(ir.passes.InPlacePass):
    """Base of all passes. Subclasses are frozen dataclasses whose fields are their options."""

    name: ClassVar[str]

    @abstractmethod
    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        """Change `model` in place, yielding what was done, refused and found, in graph order."""

    def call(self, model: ir.Model) -> Report:
        events: list[Event] = []
        old = {id(node): node for node in model.graph.all_nodes()}
        listener = model.meta.get(LISTENER)
        for event in self.rewrite(model):
            events.append(event)
            if listener is not None:
                listener(len(events))
        changes = tuple(e for e in events if isinstance(e, Change))
        if changes:
            _name_apart(model, old)
        refusals = tuple(e for e in events if isinstance(e, Refusal))
        findings = tuple(e for e in events if isinstance(e, Finding))
        return Report(model, bool(changes), changes, refusals, findings)

    def __str__(self) -> str:
        """The textual form; options at their default are left out."""
        given = [
            f"{f.name}={_text(getattr(self, f.name))}"
            for f in dataclasses.fields(self)
            if getattr(self, f.name) != f.default
        ]
        return f"{self.name}{{{','.join(given)}}}" if given else self.name

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> Pass:
        """The pass with options given as text.

        Raises:
            UsageError: an option that the pass does not have, or a value of the wrong type.
        """
        types = get_type_hints(cls)
        known = {f.name for f in dataclasses.fields(cls)}
        for option in options:
            if option not in known:
                raise UsageError(
                    f"pass `{cls.name}` has no option `{option}`",
                    where="--passes",
                    hint=f"its options are {', '.join(sorted(known))}" if known else "it has no options",
                )
        return cls(**{o: _value(cls.name, o, text, types[o]) for o, text in options.items()})


def layers(model: ir.Model, *, huge: bool = False) -> list[Linear | Refusal]:
    """Every MatMul and Gemm of `model`, as a linear layer or as the reason why no pass can touch it.

    The bodies of our own operators are not the user's nodes and are left out. `huge` as in `graph.find_linear`.
    """
    version = opset(model)
    found: list[Linear | Refusal] = []
    for node in model.graph.all_nodes():
        layer = find_linear(node, huge=huge)
        if isinstance(layer, Unsupported):
            found.append(Refusal(layer.name, layer.reason))
        elif layer is not None and version < ops.MIN_OPSET:
            reason = f"the model's opset {version} is below {ops.MIN_OPSET}: convert it with onnx.version_converter"
            found.append(Refusal(layer.name, reason))
        elif layer is not None:
            found.append(layer)
    for function in model.functions.values():
        if function.domain != ops.DOMAIN:
            inside = (n for n in function.all_nodes() if find_linear(n) is not None)
            found += [Refusal(node_name(n), f"inside the function `{function.name}`") for n in inside]
    return found


def read_ahead(found: Sequence[Linear | Refusal]) -> Iterator[Linear | Refusal]:
    """The same in order, for those who look at the weights: the disk reads one while that before is worked on."""
    for one, after in zip([None, *found], [*found, None], strict=True):
        if isinstance(after, Linear):
            storage.expect(after.tensor)
        if one is not None:
            yield one


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _value(name: str, option: str, text: str, kind: type) -> Any:
    """`text` as a `kind`: bool, int, float, str, or any class with a `parse(text)` that raises ValueError."""
    try:
        if kind is bool:
            return {"true": True, "false": False}[text]
        return kind.parse(text) if hasattr(kind, "parse") else kind(text)
    except (ValueError, KeyError) as error:
        raise UsageError(
            f"`{option}={text}` is not {_KINDS.get(kind, f'a {kind.__name__}')}",
            where=f"pass `{name}`",
            hint=str(error) if kind not in _KINDS else f"give {_KINDS[kind]}",
        ) from error
