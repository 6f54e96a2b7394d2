"""What onnx_ir does not take from a message: unknown fields and training information, put back where they were.

A part of a model is known by the names on the way to it: graph, node (by its first output and its operator), attribute,
value. What has another name or operator when the model is written has been rewritten, and its leftovers are gone.
Tensors are kept whole by onnx_ir and are not looked into.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped, unused-ignore]
from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-untyped, unused-ignore]

Place = tuple[tuple[str, object], ...]  # (field, name or number) from the model down

_DROPPED = {"ModelProto": ("training_info",)}  # fields that onnx_ir 1.1 knows nothing of, by message
_WHOLE = (onnx.TensorProto, onnx.SparseTensorProto)


def collect(model: onnx.ModelProto) -> dict[Place, bytes]:
    """All leftovers of `model`, as messages of the type at that place with nothing else in them."""
    found = {}
    for place, message in _walk(model, ()):
        if rest := _rest(message):
            found[place] = rest
    return found


def put_back(model: onnx.ModelProto, leftovers: dict[Place, bytes]) -> None:
    """Add `leftovers` to the parts of `model` that are where they were."""
    if not leftovers:
        return
    for place, message in _walk(model, ()):
        if place in leftovers:
            message.MergeFromString(leftovers[place])


def _walk(message: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    """`message` and all those inside it, but for tensors."""
    yield place, message
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        single = isinstance(value, Message)
        for number, inner in enumerate([value] if single else value):
            if not isinstance(inner, _WHOLE):
                yield from _walk(inner, (*place, (field.name, None if single else _name(inner, number))))


def _name(message: Any, number: int) -> object:
    """What `message` is called among its like."""
    if isinstance(message, onnx.NodeProto):
        return next(iter(message.output), ""), message.domain, message.op_type
    if isinstance(message, onnx.FunctionProto):
        return message.domain, message.name
    if isinstance(message, onnx.OperatorSetIdProto):
        return message.domain
    if isinstance(message, onnx.StringStringEntryProto):
        return message.key
    return getattr(message, "name", number)


def _rest(message: Any) -> bytes:
    """A message of the same type with what onnx_ir would drop of this one, serialised."""
    dropped = [f for f in _DROPPED.get(message.DESCRIPTOR.name, ()) if getattr(message, f)]
    if not len(UnknownFieldSet(message)) and not dropped:
        return b""
    rest = type(message)()
    rest.CopyFrom(message)
    for field in message.DESCRIPTOR.fields:
        if field.name not in dropped:
            rest.ClearField(field.name)
    return bytes(rest.SerializeToString(deterministic=True))
