"""Clean a model with onnx_ir's and onnxscript's own passes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import onnx_ir as ir
import onnx_ir.passes.common as common
from onnxscript.optimizer._constant_folding import FoldConstantsPass

from sparsify.dimensions import FoldDimensions
from sparsify.graph import nodes
from sparsify.ops import DOMAIN
from sparsify.rewrite import Change, Event, Pass, Refusal

_RANDOM = {
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
_SPARED = {*_RANDOM, "Resize", "Upsample"}
# What it does, the pass that does it, and why it must be left out, if it must.
_Step: TypeAlias = tuple[str, Callable[[], ir.passes.InPlacePass], Callable[[ir.Model], str]]

_MIN_IR_VERSION = 4  # the first in which an initializer need not be an input


@dataclass(frozen=True)
class Cleanup(Pass):
    """Folds constants, removes duplicates and what is not used.

    What:
        Inlining of functions that hold linear layers, constants for dimensions that inputs declare, constant folding,
        identity elimination, lifting of Constant nodes to initializers, deduplication of initializers, common
        subexpressions, unused nodes and functions: passes of onnx_ir and onnxscript but for the second, in that order.
        One change is reported for each that did something. Names of inputs and outputs stay.
        Models of IR 3, where every weight must also be an input, are raised to IR 4 with weights as constants,
        which is how runtimes treat them anyway.
    When it fires:
        On every model.
    When it refuses:
        A folded result of more than `fold_limit` elements, unless it frees as much; random operators; strings.
        Identity elimination, where it would rename an output or make a subgraph return a value of its outer
        scope; common subexpressions, where a model holds random operators.
    Mathematics:
        None.
    Cost:
        Loads and evaluates what it folds.
    Drift:
        Rounding of folded expressions, computed by onnx's reference evaluator.
    Source:
        onnx_ir.passes.common, onnxscript.optimizer.
    """

    name: ClassVar[str] = "cleanup"

    fold_limit: int = 8192  # elements of a folded operand or result

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        with _quiet():
            if model.ir_version < _MIN_IR_VERSION:
                model.ir_version = _MIN_IR_VERSION
                common.RemoveInitializersFromInputsPass()(model)
                yield Change("", f"raised the IR version to {_MIN_IR_VERSION}: weights are constants, not inputs")
            with _as_declared(model):
                yield from self._clean(model)

    def _clean(self, model: ir.Model) -> Iterator[Event]:
        for what, make, obstacle in self._steps(model):
            if reason := obstacle(model):
                yield Refusal("", f"{what} left out: {reason}")
                continue
            before, count = _fingerprint(model), model.graph.num_nodes()
            make()(model)
            if _fingerprint(model) != before:
                yield Change("", f"{what}: {count} nodes, now {model.graph.num_nodes()}")

    def _steps(self, model: ir.Model) -> Iterator[_Step]:
        yield "inlining of functions with linear layers", lambda: common.InlinePass(_with_products(model)), _never
        yield "dimensions that inputs declare", FoldDimensions, _never
        yield "constant folding", self._fold, _doubled
        yield "identity elimination", common.IdentityEliminationPass, _renames
        yield "lifting of constants", lambda: common.LiftConstantsToInitializersPass(size_limit=1), _never
        yield "deduplication of initializers", common.DeduplicateInitializersPass, _never
        yield "common subexpressions", common.CommonSubexpressionEliminationPass, _unmergeable
        yield "unused nodes", common.RemoveUnusedNodesPass, _never
        yield "unused functions", common.RemoveUnusedFunctionsPass, _never

    def _fold(self) -> ir.passes.InPlacePass:
        # None leaves the decision to the pass, which also spares ConstantOfShape and quantised weights. Runtimes fold a
        # Resize when they load a model; onnx's reference of it takes minutes.
        return FoldConstantsPass(
            shape_inference=False,
            input_size_limit=self.fold_limit,
            output_size_limit=self.fold_limit,
            should_fold=lambda node: False if node.op_type in _SPARED or _cannot_be_stored(node) else None,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries from warning about what is no concern of the user, such as what they left as it was."""
    loggers = [logging.getLogger(name) for name in ("onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _as_declared(model: ir.Model) -> Iterator[None]:
    """Keep the shapes and types that inputs and outputs are declared with.

    onnx_ir and onnxscript give what an Identity reads the shape that its output is declared with, which is often that
    of the one batch which an exporter has seen. An input would take no other from then on. And a value that comes to be
    an output, in the place of a node like the one that made it, may never have been given a type.
    """
    inside = [(v, v.shape) for node in nodes(model) if node.op_type == "Identity" for v in node.outputs]
    outside = [(ends, [(v.shape, v.type) for v in ends]) for g in model.graphs() for ends in (g.inputs, g.outputs)]
    for value, _ in inside:
        value.shape = None
    try:
        yield
    finally:
        for value, shape in inside:
            value.shape = shape
        for ends, declared in outside:
            # A branch that was taken in has no ends left.
            for value, (shape, kind) in zip(ends, declared, strict=False):
                value.shape, value.type = shape, value.type or kind


def _with_products(model: ir.Model) -> Callable[[ir.Function], bool]:
    """Which functions of the user's hold a MatMul or Gemm, in a function that they call too: passes can then see it."""
    # A body means what it says under its own opset only.
    movable = {
        key: f
        for key, f in model.functions.items()
        if key[0] != DOMAIN and all(model.opset_imports.get(d, v) == v for d, v in f.opset_imports.items())
    }
    holding = {key for key, f in movable.items() if {n.op_type for n in f.all_nodes()} & {"MatMul", "Gemm"}}
    grown = True
    while grown:
        callers = {key for key, f in movable.items() if any(n.op_identifier() in holding for n in f.all_nodes())}
        grown = not callers <= holding
        holding |= callers
    return lambda function: function.identifier() in holding


def _cannot_be_stored(node: ir.Node) -> bool:
    """Whether a result may be no tensor that the pass can store: strings, or what comes of a missing operand."""
    if node.op_type == "Cast" and node.attributes.get_int("to", 0) == ir.DataType.STRING:
        return True
    return node.inputs[:1] == (None,) or any(value is not None and _is_text(value) for value in node.inputs)


def _is_text(value: ir.Value) -> bool:
    return ir.DataType.STRING in (value.dtype, None if value.const_value is None else value.const_value.dtype)


def _never(_: ir.Model) -> str:
    return ""


def _unmergeable(model: ir.Model) -> str:
    # onnx_ir knows some of them; Bernoulli and Dropout in training mode would become one.
    if found := sorted({node.op_type for node in nodes(model)} & _RANDOM):
        return f"the model holds {', '.join(found)}"
    return _doubled(model)


def _doubled(model: ir.Model) -> str:
    # onnx_ir would define such an output twice, or rename it in one of its places.
    for graph in model.graphs():
        if twice := next((v for v, times in Counter(graph.outputs).items() if times > 1), None):
            return f"`{twice.name}` is an output twice"
    return ""


def _renames(model: ir.Model) -> str:
    """Why identity elimination would break the model: it renames an output's source whatever else that is."""
    for node in nodes(model):
        if node.op_type != "Identity" or node.domain != "" or not node.outputs[0].is_graph_output():
            continue
        source = node.inputs[0]
        if source is None or source.is_graph_input() or source.is_initializer():
            continue
        if source.is_graph_output():
            return f"`{source.name}` and `{node.outputs[0].name}` are outputs of the same value"
        if source.graph is not node.graph:
            return f"the subgraph output `{node.outputs[0].name}` is a value of the outer scope"
    return _doubled(model)


@dataclass(frozen=True, eq=False)
class _Same:
    """Compares by identity, and keeps what it compares alive so that no other object takes its place."""

    thing: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.thing is other.thing

    def __hash__(self) -> int:
        return id(self.thing)


def _fingerprint(model: ir.Model) -> list[object]:
    """What is serialised of a model, with tensors by identity: equal before and after means the same bytes."""
    found: list[object] = [str(model.opset_imports), str(model.metadata_props)]
    for graph in model.graphs():
        found += [_signature(v) for v in (*graph.inputs, *graph.outputs)]
        found += [(name, _Same(v.const_value)) for name, v in graph.initializers.items()]
    for node in nodes(model):
        attributes = [
            (a.name, _Same(a.value) if a.type in _BY_IDENTITY else str(a.value), a.ref_attr_name)
            for a in node.attributes.values()
        ]
        inputs = [None if v is None else v.name for v in node.inputs]
        found.append((node.domain, node.op_type, node.name, inputs, [_signature(v) for v in node.outputs], attributes))
        found.append(str(node.metadata_props))
    return [*found, *(str(key) for key in model.functions)]


_BY_IDENTITY = {ir.AttributeType.TENSOR, ir.AttributeType.TENSORS, ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}


def _signature(value: ir.Value) -> tuple[str | None, str, str]:
    return value.name, str(value.type), str(value.shape)
