"""Quantise an activation once for all int8 operators that read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import onnx_ir as ir

from sparsify import ops
from sparsify.convolutions import rows as seen
from sparsify.graph import constant, graph_of, names, node_name, substitute
from sparsify.lowering import named
from sparsify.machine import machine
from sparsify.rewrite import Change, Event, Pass, Refusal

_DTYPES = (ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8)
_SHAPE_AT = 3  # of the inputs of an int8 operator
_L2 = 2**20  # bytes, where the system does not tell


@dataclass(frozen=True)
class ShareQuantization(Pass):
    """Quantises the rows of an activation once, where several int8 operators would do so each.

    What:
        SparseMatMulInt8* operators that read one X become SparseMatMulInteger*, which read its quantised rows, scales
        and zero points. These come from one DynamicQuantizeRows in front of the first. So query, key and value of an
        attention layer, or gate and up of an MLP.
    When it fires:
        Two or more of them read the same X in the same graph and, unless `measure=false`, quantising once was measured
        on this machine to be faster with the rows that X was observed to have.
    When it refuses:
        Nothing else quantises X. With few rows a further operator costs more than the quantising that it saves; with
        many, X and its quantised rows leave L2 between their readers, and whole models gain nothing.
    Mathematics:
        The same operations in the same order: results are the same, to the bit, with kernels and without.
    Cost:
        Saves the time of quantising M K numbers for each reader but one; costs that of one more operator, about 1 us,
        and M K bytes of memory while the readers run.
    Drift:
        None.
    Source:
        onnxruntime's dynamic quantiser makes one DynamicQuantizeLinear for all MatMulIntegers of an activation, too.
    """

    name: ClassVar[str] = "share-quantization"

    measure: bool = True  # and refuse what is not faster
    rows: int = 128  # rows of X to measure with, where nobody has observed how many there are
    threads: int = 1  # threads to measure with

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        taken = names(model)
        for x, readers in _readers(model):
            reason, facts = self._obstacle(x, readers)
            if reason:
                yield from (Refusal(node_name(node), reason, facts) for node in readers)
                continue
            rows = _quantize(x, readers[0], taken)
            yield from (_read(model, node, rows, f"shares the quantised rows of `{x.name}`", facts) for node in readers)

    def _obstacle(self, x: ir.Value, readers: Sequence[ir.Node]) -> tuple[str, dict[str, Any]]:
        """Why X is not quantised once; empty if it is to be. And what was measured."""
        if len(readers) == 1:
            return f"no other int8 operator reads `{x.name}`", {}
        shape = constant(readers[0].inputs[_SHAPE_AT])
        if not self.measure or shape is None:
            return "" if shape is not None else "its shape is not a constant", {}
        from sparsify import cost  # only who measures needs onnxruntime

        rows, k = seen(readers[0], self.rows), int(shape[0])
        named_rows = f"{rows} row{'' if rows == 1 else 's'} of `{x.name}`"
        if 4 * rows * k > (room := dict(machine().caches).get("L2", _L2)):
            return f"{named_rows} take more than {room} bytes: they would leave L2 between their readers", {}
        found = cost.measure_sharing(k, len(readers), rows=rows, threads=self.threads)
        facts = {"apart_ms": found.dense_ms, "shared_ms": found.rewritten_ms}
        if found.speedup > 1:
            return "", facts
        reason = (
            f"with {named_rows} it gains nothing: {len(readers)} products of few columns take "
            f"{1e3 * found.rewritten_ms:.1f} us, and {1e3 * found.dense_ms:.1f} us where each quantises"
        )
        return reason, facts


def _readers(model: ir.Model) -> list[tuple[ir.Value, list[ir.Node]]]:
    """The int8 operators that quantise an activation themselves, in graph order, by that activation and graph."""
    found: dict[tuple[ir.Value, object], list[ir.Node]] = {}
    for node in model.graph.all_nodes():
        operator = ops.operator_of(node)
        if operator is not None and operator.integer and not operator.quantized and node.inputs[0] is not None:
            found.setdefault((node.inputs[0], node.graph), []).append(node)
    return [(x, nodes) for (x, _), nodes in found.items()]


def _quantize(x: ir.Value, first: ir.Node, taken: set[str]) -> Sequence[ir.Value]:
    """The quantised rows, scales and zero points of X, made in front of `first`."""
    node = ir.Node(ops.DOMAIN, ops.QUANTIZE, [x], num_outputs=3, name=f"{x.name}/quantize")
    for value, end, dtype in zip(node.outputs, ("q", "scale", "zero_point"), _DTYPES, strict=True):
        named(value, f"{x.name}/{end}", taken, dtype)
    graph_of(first).insert_before(first, node)
    return node.outputs


def _read(model: ir.Model, node: ir.Node, rows: Sequence[ir.Value], what: str, facts: dict[str, Any]) -> Change:
    """Let the operator `node` read quantised rows."""
    operator = ops.operator_of(node)
    assert operator is not None
    shared = replace(operator, quantized=True)
    new = ir.Node(ops.DOMAIN, shared.name, [*rows, *node.inputs[1:]], name=node_name(node))
    new.meta.update(node.meta)
    new.metadata_props.update(node.metadata_props)
    ops.add_operator(model, shared)
    substitute([node], [new])
    return Change(node_name(new), what, facts)
