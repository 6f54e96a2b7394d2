"""Models between two models: the base, with some of the candidate's changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from graphlib import TopologicalSorter

import onnx

from sparsify.audit.attribution.sides import Side, reads
from sparsify.errors import InputError
from sparsify.runtime.source import graphs_in

_CANDIDATE = "sparsify_candidate:"
_REPLACED = "sparsify_replaced:"


class Hybrids:
    """Mixtures of `old` and `new`, whose values `partner` pairs (base value by candidate value)."""

    def __init__(self, old: Side, new: Side, partner: Mapping[str, str]) -> None:
        """Raises InputError: the two define one function, or use one operator set, differently."""
        self._old, self._new, self._partner = old, new, partner
        self._frame = _frame(old.probe.skeleton.proto, new.probe.skeleton.proto)

    def model(self, taken: Collection[str]) -> onnx.ModelProto:
        """The base in which the candidate's nodes compute those of the paired values that are `taken`.

        Base names stay. The candidate's get a prefix; a paired value exists under both names, one a copy of the other.
        """
        old, new = self._old, self._new
        replaced = {self._partner[value] for value in taken}
        nodes = [_renamed(node, {}, replaced, "") for node in old.graph.node]
        inner = {n: _CANDIDATE + n for n in (*new.producer, *new.constants)}
        left = self._partner.keys() - set(taken)
        nodes += [_renamed(node, inner, left, _CANDIDATE) for node in new.graph.node]
        for value, base in self._partner.items():
            ends = (inner[value], base) if value in taken else (base, inner[value])
            nodes.append(self._copy(value, base, *ends))
        return self._assembled(nodes)

    def _copy(self, value: str, base: str, source: str, target: str) -> onnx.NodeProto:
        """`target` is `source`, in its own type where both models have one."""
        ours, theirs = self._old.values.get(base), self._new.values.get(value)
        if ours is None or theirs is None or ours.element == theirs.element:
            return onnx.helper.make_node("Identity", [source], [target])
        wanted = ours if target == base else theirs
        return onnx.helper.make_node("Cast", [source], [target], to=wanted.element)

    def _assembled(self, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
        """A model of those of `nodes` that its outputs need."""
        old, new = self._old.graph, self._new.graph
        maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
        pending, read = [o.name for o in old.output], set()
        waits: dict[int, set[int]] = {}
        while pending:
            name = pending.pop()
            read.add(name)
            index = maker.get(name)
            if index is not None and index not in waits:
                waits[index] = {maker[n] for n in reads(nodes[index]) if n in maker}
                pending += reads(nodes[index])
        model = onnx.ModelProto()
        model.CopyFrom(self._frame)
        model.graph.name = old.name
        model.graph.input.extend(i for i in old.input if i.name in self._old.inputs)
        model.graph.output.extend(old.output)
        model.graph.node.extend(nodes[index] for index in TopologicalSorter(waits).static_order())
        model.graph.initializer.extend(t for t in old.initializer if t.name in read)
        for tensor in new.initializer:
            if _CANDIDATE + tensor.name in read:
                model.graph.initializer.add().CopyFrom(tensor)
                model.graph.initializer[-1].name = _CANDIDATE + tensor.name
        return model


def _renamed(node: onnx.NodeProto, names: Mapping[str, str], dead: Collection[str], prefix: str) -> onnx.NodeProto:
    """A copy that reads and computes by `names`; outputs in `dead` get a name that nobody reads."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = prefix + node.name if node.name else ""
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [_REPLACED + prefix + name if name in dead else names.get(name, name) for name in node.output]
    _rename_captured(copy, names)
    return copy


def _rename_captured(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Rename what the bodies of `node` take from outside."""
    for graph in graphs_in(node):
        own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
        own |= {name for inner in graph.node for name in inner.output}
        outer = {name: new for name, new in names.items() if name not in own}
        for inner in graph.node:
            inner.input[:] = [outer.get(name, name) for name in inner.input]
            _rename_captured(inner, outer)
        for output in graph.output:
            output.name = outer.get(output.name, output.name)


def _frame(old: onnx.ModelProto, new: onnx.ModelProto) -> onnx.ModelProto:
    """What both models need besides their graphs."""
    frame = onnx.ModelProto(ir_version=max(old.ir_version, new.ir_version))
    versions: dict[str, int] = {}
    for model in (old, new):
        for entry in model.opset_import:
            domain = "" if entry.domain == "ai.onnx" else entry.domain
            if versions.setdefault(domain, entry.version) != entry.version:
                raise InputError(
                    f"base and candidate use version {versions[domain]} and {entry.version} of the operators "
                    f"`{domain or 'ai.onnx'}`",
                    hint="convert one of them with onnx.version_converter",
                )
    frame.opset_import.extend(onnx.helper.make_opsetid(d, v) for d, v in versions.items())
    known = {_key(f): f for f in old.functions}
    for function in new.functions:
        if known.setdefault(_key(function), function) != function:
            raise InputError(f"base and candidate define the function `{function.name}` differently")
    frame.functions.extend(known.values())
    return frame


def _key(function: onnx.FunctionProto) -> tuple[str, str, str]:
    return function.domain, function.name, getattr(function, "overload", "")  # onnx 1.16 and later
