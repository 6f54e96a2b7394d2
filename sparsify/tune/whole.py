"""What share of the whole model's time layers save, for each millisecond that their own times tell.

Times of single layers do not see what a model does to the caches between two runs of a layer: one of 90 MB streams its
weights through them, one of 11 MB keeps them there. So the plan that is soonest built, the fastest that prunes nothing,
is timed as a whole beside the model as it came; what others save is predicted from that. As a share, since feeds may be
of many sizes: layers are timed with the rows of one of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from sparsify import runtime
from sparsify.data import Feed
from sparsify.tune.options import Problem, Settings
from sparsify.tune.plan import build

_RUNS, _LIMIT_S = 15, 10.0


def saved_share(model: ir.Model, problem: Problem, learn: Sequence[Feed], settings: Settings) -> float | None:
    """None where costs are bytes, or another machine's, or nothing pays without pruning."""
    taken = problem.fastest_unpruned()
    told = problem.saved(taken)
    if settings.goal != "latency" or settings.costs is not None or told <= 0:
        return None
    candidate = model.clone()
    build(candidate, settings.pipeline, problem.plan(taken), learn)
    models = {"base": model, "candidate": candidate}
    sessions = {name: runtime.session(one, threads=settings.threads) for name, one in models.items()}
    times = runtime.interleave(sessions, learn[:1], runs=_RUNS, limit_s=_LIMIT_S)
    return (1 - times["candidate"].median_ms / times["base"].median_ms) / told
