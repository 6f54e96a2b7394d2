"""From choices by name to a model: the passes do the work, and keep to what was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from sparsify import graph
from sparsify.data import Feed
from sparsify.pipeline import Pipeline, PipelineReport, parse
from sparsify.pipeline.levels import with_settings
from sparsify.pipeline.run import Progress, silence
from sparsify.rewrite import CHOICE, Choice

Plan = Mapping[str, Choice]  # by a layer's name

PREPARE = "cleanup,conv-matmul,detect,shrink"
SMOOTH = "smooth"  # leaves alone what is pruned
EXACT, BF16, INT8 = "sparse-fp32", "sparse-bf16", "sparse-int8"
# By format: the pass that takes the layers for which it was chosen. What was measured is not measured again.
OURS = {format_: parse(f"{format_}{{min_sparsity=0}}")[0] for format_ in (INT8, BF16, EXACT)}
STOCK = {  # onnxruntime's own operators only
    "stock-int8": parse("stock-int8")[0],
    "stock-nbits8": parse("stock-nbits{bits=8}")[0],
    "stock-nbits4": parse("stock-nbits{bits=4}")[0],
}
LOWER = OURS | STOCK
_PRUNE = "prune{min_size=1}"
PRODUCTS = parse("conv-matmul")
SETTLE = parse("settle-layout")
FUSE = (*SETTLE, *parse("fuse-epilogue"))
SHARE = parse("share-quantization")  # of what INT8 made


def pipeline(
    target: str, memory: int | None = None, *, rows: int | None = None, threads: int | None = None
) -> Pipeline:
    """All passes, from a model as it comes to the result; `memory` in MiB while learning from data.

    `rows` and `threads` are those to measure with.
    """
    if target == "stock":
        return Pipeline((*parse(f"{PREPARE},{SMOOTH}"), *STOCK.values(), *SETTLE))
    # Smoothing comes second: plans then share what they prune alike, whatever else they choose.
    learning = with_settings(parse(f"{_PRUNE},{SMOOTH}"), memory=memory)
    share = with_settings(SHARE, rows=rows, threads=threads)
    return Pipeline((*parse(PREPARE), *learning, *LOWER.values(), *FUSE, *share))


def applied(pipeline: Pipeline, plan: Plan) -> Pipeline:
    """`pipeline` without the passes that nothing was chosen for."""
    chosen = {choice.format for choice in plan.values()}
    idle = {one for format_, one in LOWER.items() if format_ not in chosen}
    unused = set() if INT8 in chosen else {one.name for one in SHARE}
    if all(choice.pattern is None for choice in plan.values()):
        unused.add("prune")
    if not any(choice.format and choice.pattern is None for choice in plan.values()):
        unused.add(SMOOTH)
    return Pipeline(tuple(p for p in pipeline.passes if p not in idle and p.name not in unused))


def mark(model: ir.Model, plan: Plan) -> None:
    """Tell the linear layers of `model` what was chosen for them: nothing for those that `plan` does not name."""
    for layer in graph.linear_layers(model):
        layer.node.meta[CHOICE] = plan.get(layer.name, Choice())


def build(
    model: ir.Model,
    pipeline: Pipeline,
    plan: Plan,
    calibration: Sequence[Feed],
    progress: Progress = silence,
) -> PipelineReport:
    """Change `model` in place: `plan` for the layers that it names, the others are left."""
    mark(model, plan)
    sample = calibration[0] if calibration else None
    chosen = applied(pipeline, plan)
    return chosen.run(model, sample=sample, calibration=calibration, progress=progress)
