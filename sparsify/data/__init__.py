"""Feeds: reading them, holding them against a model's inputs, and dividing them."""

from __future__ import annotations

from sparsify.data.division import IndivisibleError, digest, split
from sparsify.data.feeds import Array, Feed, FileFeed, TensorSpec, check, origins, rows, specs_of
from sparsify.data.reading import Reading
from sparsify.data.sources import load

__all__ = [
    "Array",
    "Feed",
    "FileFeed",
    "IndivisibleError",
    "Reading",
    "TensorSpec",
    "check",
    "digest",
    "load",
    "origins",
    "rows",
    "specs_of",
    "split",
]
