"""What one output leaves behind, feed by feed, and what it comes to."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sparsify.audit import kinds, metrics, persample
from sparsify.audit.measures.intervals import all_equal
from sparsify.audit.measures.neighbours import Neighbours
from sparsify.audit.metrics import Floats, Sum
from sparsify.audit.report import OutputDrift
from sparsify.data import Array, Feed, origins

FEW_SAMPLES = 10


class Output:
    """One output over all feeds.

    Attributes:
        name: of the output.
        tensor: False once it was something else.
        kind: see `sparsify.audit.kinds`; None until it has elements, and of what is not made of floats.
    """

    def __init__(self, name: str, seed: int, told: str | None = None, asked: Iterable[str] = ()) -> None:
        """See `kinds.decide` for `told` and `asked`; `seed` is of all that is drawn."""
        self.name = name
        self.tensor = True
        self.kind: str | None = None
        self._told, self._asked, self._seed = told, list(asked), seed
        self._classes = 0
        self._tables: list[Floats] = []  # of each feed
        self._origins: list[list[str | None]] = []
        self._neighbours = Neighbours(seed)

    def add(self, base: Array, candidate: Array, feed: Feed, rows: int | None) -> int:
        """Take in one feed: outputs of one shape; `rows` is how many samples a leading axis counts, if one does.

        Returns:
            How many samples the output has in it.
        """
        aligned = rows is not None and base.ndim > 0 and base.shape[0] == rows
        samples = rows if aligned and rows is not None else 1
        extra: tuple[metrics.Rows, ...] = ()
        if metrics.is_float(base) and base.size:
            if self.kind is None:
                self.kind = kinds.decide(self.name, base, feed, self._told, self._asked)
                self._classes = base.shape[-1] if base.ndim else 0
            extra = kinds.rows(self.kind, base, feed, samples)
            if self.kind == "embeddings" and len(base) == samples:
                self._neighbours.add(base, candidate)
        self._tables.append(metrics.sums(base, candidate, samples, *extra))
        self._origins.append(origins(feed, samples))
        return samples

    @property
    def measured(self) -> bool:
        """Whether any element was compared; False of an output that is not finite in either model, and the same."""
        return any((t[:, Sum.SIZE] > t[:, Sum.LEFT_OUT]).any() for t in self._tables)

    def summary(self) -> OutputDrift:
        """Drift over all samples."""
        table = np.concatenate(self._tables)
        if self.kind == "embeddings":
            self._neighbours.fill(table)
        floats = self.kind is not None
        names = (
            ["agreement"]
            if self.kind is None
            else metrics.measurable(table, kinds.metrics_of(self.kind, self._classes))
        )
        return OutputDrift(
            self.name,
            len(table),
            metrics.intervals(table, names, self._seed, floats=floats),
            exact=all_equal(table),
            mismatches=int(table[:, Sum.MISMATCHES].sum()),
            unseen_share=metrics.unseen_share(len(table)),
            per_sample=persample.of(self._tables, self._origins, floats),
            kind=self.kind,
            flipped=int(table[:, Sum.FLIPPED].sum()) if "flips" in names or "token_agreement" in names else None,
        )

    def notes(self) -> list[str]:
        """What a reader must know of it."""
        if not self.tensor:
            return [f"`{self.name}` was skipped: it is not a tensor"]
        total = np.concatenate(self._tables).sum(axis=0)
        size, left_out = int(total[Sum.SIZE]), int(total[Sum.LEFT_OUT])
        if not size:
            return [f"`{self.name}` was skipped: it is empty"]
        if size == left_out:
            return [f"`{self.name}` was skipped: all its elements are NaN or infinite in both models"]
        found = []
        if left_out:
            found.append(f"`{self.name}`: {left_out} of {size} elements are NaN or infinite in both and were left out")
        count = sum(map(len, self._tables))
        if count == 1:
            found.append(f"`{self.name}`: one sample, so the bounds are the value itself and say nothing of others")
        elif count < FEW_SAMPLES:
            found.append(f"`{self.name}`: {count} samples, so the intervals are rough")
        if 0 < self._neighbours.kept < count:
            found.append(f"`{self.name}`: neighbours are those among {self._neighbours.kept} of the {count} samples")
        return found
