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

PREPARE = "cleanup,detect,shrink"
# Each takes the layers that were chosen for it. What was measured is not measured again.
_OURS = ("sparse-int8{min_sparsity=0}", "sparse-bf16{min_sparsity=0}", "sparse-fp32{min_sparsity=0}")
_STOCK = ("stock-int8",)  # onnxruntime's own operators only
_CHOSEN = parse(",".join(("prune{min_size=1}", *_OURS, *_STOCK)))


def pipeline(target: str, memory: int | None = None) -> Pipeline:
    """All passes, from a model as it comes to the result; `memory` in MiB while learning from data."""
    if target == "stock":
        return Pipeline(parse(",".join((PREPARE, *_STOCK))))
    chosen = with_settings(_CHOSEN, memory=memory)
    return Pipeline((*parse(PREPARE), *chosen, *parse("fuse-epilogue")))


def applied(pipeline: Pipeline, plan: Plan) -> Pipeline:
    """`pipeline` without the passes that nothing was chosen for."""
    needed = {choice.format for choice in plan.values()} | {"prune" for c in plan.values() if c.pattern is not None}
    optional = {one.name for one in _CHOSEN}
    return Pipeline(tuple(p for p in pipeline.passes if p.name not in optional or p.name in needed))


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
