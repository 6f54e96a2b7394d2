"""Looking into a model a few feeds at a time, here or on other machines.

A batch is the same feeds whoever does it: sums of a batch, added up in the order of the batches, are the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import onnx_ir as ir

from sparsify import storage
from sparsify.data import Array, Feed
from sparsify.machine import threads as cores
from sparsify.parallel import where_it_pays
from sparsify.runtime.probe import View, capture

R = TypeVar("R")
T = TypeVar("T")

# Sums of K x K that come back from another machine are one for all feeds of a batch: few large ones cost least.
BATCH = 8  # feeds, at least
BATCHES = 16  # at most


def in_batches(items: Sequence[T]) -> list[Sequence[T]]:
    """Parts of `items` in order, as many whoever works on them."""
    size = max(-(-len(items) // BATCHES), BATCH)
    return [items[at : at + size] for at in range(0, len(items), size)]


def each_batch(
    model: ir.Model,
    feeds: Sequence[Mapping[str, Array]],
    values: Iterable[str],
    function: Callable[[Iterable[tuple[Mapping[str, Array], Feed]]], R],
    *,
    threads: int | None = None,
) -> Iterator[R]:
    """`function` of each batch of feeds, each feed with its captured `values`; on other machines where that pays.

    Args:
        model: left as it is.
        feeds: to run it on.
        values: names; those that the main graph does not have are left out.
        function: takes its batch once, in order: only one feed's values exist at a time. It can be pickled.
        threads: of onnxruntime.

    Raises:
        InputError: the model or a feed cannot be used.
    """
    batches = in_batches(feeds)
    if storage.is_large(model.graph):
        for batch in batches:
            yield function(zip(batch, capture(model, batch, values, threads=threads), strict=True))
    elif batches:
        work = _Work(View(model, values, threads=threads), function)
        yield from where_it_pays(work, batches, len(batches), threads or cores())


@dataclass(frozen=True)
class _Work(Generic[R]):
    view: View
    function: Callable[[Iterable[tuple[Mapping[str, Array], Feed]]], R]

    def __call__(self, batch: Sequence[Mapping[str, Array]]) -> R:
        return self.function((feed, self.view(feed)) for feed in batch)
