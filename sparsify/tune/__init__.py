"""The measured choice: the fastest model inside a drift budget."""

from sparsify.tune.plan import Plan, applied, build, pipeline
from sparsify.tune.search import Found, Trial, search

__all__ = ["Found", "Plan", "Trial", "applied", "build", "pipeline", "search"]
