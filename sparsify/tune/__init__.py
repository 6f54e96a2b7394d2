"""The measured choice: the fastest model inside a drift budget."""

from sparsify.tune.options import GOALS, Problem, Settings, problem
from sparsify.tune.plan import Plan, applied, build, mark, pipeline
from sparsify.tune.search import Found, search
from sparsify.tune.trials import Trial

__all__ = [
    "GOALS",
    "Found",
    "Plan",
    "Problem",
    "Settings",
    "Trial",
    "applied",
    "build",
    "mark",
    "pipeline",
    "problem",
    "search",
]
