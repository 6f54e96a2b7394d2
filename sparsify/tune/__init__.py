"""The measured choice: the fastest model inside a drift budget."""

from sparsify.tune.plan import Plan, applied, build, mark, pipeline
from sparsify.tune.search import Found, search
from sparsify.tune.trials import Trial

__all__ = ["Found", "Plan", "Trial", "applied", "build", "mark", "pipeline", "search"]
