"""What both models answer to each sample, gathered feed by feed where it fits the labels (`truth` says what fits)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sparsify.audit.kinds import CLASS_LIKE
from sparsify.audit.labels import Labels
from sparsify.audit.metrics import Floats
from sparsify.audit.truth import Truth, accuracy, f1, resampled, spearman
from sparsify.data import Array
from sparsify.errors import InputError

_NO_CLASS = -1  # the answer of a row that has a NaN


class Answers:
    """What both models answered, sample by sample, of the outputs that fit the labels."""

    def __init__(self, labels: Labels, seed: int) -> None:
        self._labels, self._seed = labels, seed
        self._found: dict[str, list[tuple[Array, Array]]] = {}
        self._pairs: dict[str, list[Floats]] = {}  # embeddings [2, 0 or 1, width] that wait for their second

    def add(self, output: str, kind: str | None, base: Array, candidate: Array, samples: int) -> None:
        """Take in one output of one feed, both arrays of one shape, with `samples` samples.

        Raises:
            InputError: a label that is none of the classes.
        """
        if self._labels.output not in (None, output) or not samples:
            return
        both = self._read(output, kind, base, candidate, samples)
        if both is not None:
            self._found.setdefault(output, []).append(both)

    def truths(self) -> tuple[Truth, ...]:
        """The figures of every output that fits.

        Raises:
            InputError: none fits, or there are not as many labels as samples.
        """
        if not self._found:
            kind = "classes want a row of classes or an integer" if self._labels.classes else "degrees want a number"
            hint = f"{kind} a sample; `--kind OUTPUT=logits` says that an output is classes"
            raise InputError("no output can be held against these labels", where=self._labels.where, hint=hint)
        return tuple(truth for output, parts in self._found.items() for truth in self._judge(output, parts))

    def _read(
        self, output: str, kind: str | None, base: Array, candidate: Array, samples: int
    ) -> tuple[Array, Array] | None:
        if self._labels.classes and kind in CLASS_LIKE and base.size == samples * base.shape[-1]:
            if (most := int(self._labels.values.max())) >= base.shape[-1]:
                what = f"label {most} is none of the {base.shape[-1]} classes of `{output}`"
                raise InputError(what, where=self._labels.where, hint="classes are counted from 0")
            return _largest(base), _largest(candidate)
        if self._labels.classes and base.dtype.kind in "iub" and base.size == samples:
            return base.reshape(-1), candidate.reshape(-1)
        if self._labels.classes or kind is None:
            return None
        if base.size == samples:
            return base.reshape(-1).astype(np.float64), candidate.reshape(-1).astype(np.float64)
        return self._cosines(output, base, candidate) if kind == "embeddings" and len(base) == samples else None

    def _cosines(self, output: str, base: Array, candidate: Array) -> tuple[Array, Array]:
        both = np.stack([base, candidate]).astype(np.float64)
        if waiting := self._pairs.get(output):
            both = np.concatenate([waiting.pop(), both], axis=1)
        even = both.shape[1] // 2 * 2
        if even < both.shape[1]:
            self._pairs.setdefault(output, []).append(both[:, even:])
        first, second = both[:, 0:even:2], both[:, 1:even:2]
        norms = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
        cosines = np.divide((first * second).sum(-1), norms, out=np.zeros_like(norms), where=norms > 0)
        return cosines[0], cosines[1]

    def _judge(self, output: str, parts: list[tuple[Array, Array]]) -> Iterator[Truth]:
        base, candidate = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
        right = self._labels.values
        if len(base) != len(right) or any(self._pairs.values()):
            what = f"{len(right)} labels for {len(base)} answers of `{output}`"
            raise InputError(what, where=self._labels.where, hint="one a sample, in the order of the data")
        if self._labels.classes:
            yield accuracy(output, right, base, candidate)
            yield resampled(output, "f1", f1(right, base), f1(right, candidate), len(right), self._seed)
            return
        old, new = (spearman(right, np.nan_to_num(side)) for side in (base, candidate))
        yield resampled(output, "spearman", old, new, len(right), self._seed)


def _largest(rows: Array) -> npt.NDArray[np.int64]:
    """The class of each row; none where it has a NaN."""
    wide = rows.reshape(-1, rows.shape[-1]).astype(np.float64)
    return np.where(np.isnan(wide).any(-1), _NO_CLASS, wide.argmax(-1))
