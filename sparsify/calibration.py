"""What calibration data says about each linear layer while the model is pruned, layer after layer.

When a group's turn comes (see `pruning.groups`) all layers upstream are done, and both the dense model and the changed
one run as far as its inputs (see `runtime.Stages`): here, or on other machines (see `parallel`), which are sent what is
live where the last group ended, and send back what is live at the next, with the sums over it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import onnx_ir as ir

from sparsify import graph, machine, modelio, runtime
from sparsify.data import Array, Feed
from sparsify.errors import InputError
from sparsify.graph import FloatArray, Linear, readers
from sparsify.parallel import here, in_threads, where_it_pays
from sparsify.pruning import residual_of
from sparsify.runtime import Stages, counted
from sparsify.runtime.batches import in_batches
from sparsify.runtime.moments import MASK_INPUT
from sparsify.runtime.stages import Leg, Step
from sparsify.solvers.statistics import Products, Statistics, products


class Learner:
    """Statistics of the inputs of linear layers of the main graph of `model`, which is pruned meanwhile."""

    def __init__(
        self, model: ir.Model, feeds: Sequence[Mapping[str, Array]], *, memory: int, threads: int | None = None
    ) -> None:
        """The model as it is now is the dense one.

        Args:
            model: to be changed group by group, each after its statistics were asked for.
            feeds: to learn from.
            memory: bytes of activations to keep; more go to a scratch folder.
            threads: to use in all.
        """
        self._model, self._feeds, self._memory, self._threads = model, feeds, memory, threads or machine.threads()
        self._original = modelio.load(model)  # shares tensors: those of the model are replaced, never written to
        # Feeds run side by side, a thread each: no operator waits for a slower thread, or has too little for several.
        self._each = max(self._threads // max(len(feeds), 1), 1)
        self._dense = Stages(self._original, feeds, threads=self._each, memory=memory // 2)
        self._changed = Stages(model, feeds, threads=self._each, memory=memory // 2)
        self._staged = True
        self._expected: list[str] = []  # where stages will end
        self._skipped: list[str] = []  # where stages would have ended had their groups not been done already

    def expect(self, plan: Iterable[tuple[Sequence[Linear], Sequence[Linear]]]) -> None:
        """Say what `statistics` or `skip` will be asked for: groups and what is wanted of each, in order.

        The dense model then runs on towards the next group while the statistics of one are made use of.
        """
        self._expected = [str(group[0].x.name) for group, wanted in plan if self._stops(wanted)]

    def close(self) -> None:
        """Drop what was kept."""
        self._dense.close()
        self._changed.close()

    def statistics(self, group: Sequence[Linear], wanted: Sequence[Linear]) -> dict[ir.Value, Statistics]:
        """What the inputs of the `wanted` layers of a group are, by the storage of their weights.

        Those that the data does not reach are left out. A weight that layers of several groups share is judged by
        all of them, in the dense model.
        """
        found: dict[ir.Value, Statistics | None] = {}
        seen = [layer for layer in wanted if self._seen(layer)]
        own = [layer for layer in seen if not _shared(layer)]
        if own:
            together = self._in_order(group, own)
            found = {layer.source: together for layer in own}
        for layer in seen:
            if _shared(layer):
                found[layer.source] = self._of_shared(layer)
        return {source: one for source, one in found.items() if one is not None}

    def skip(self, group: Sequence[Linear], wanted: Sequence[Linear]) -> None:
        """Instead of `statistics`, for a group that is what it is to be: an earlier run pruned it.

        Stages end where they would have ended: onnxruntime fuses within a stage, and fused sums round differently.
        """
        if self._stops(wanted):
            self._skipped.append(str(group[0].x.name))

    def _seen(self, layer: Linear) -> bool:
        return layer.node.graph is self._model.graph and bool(layer.x.name) and not layer.transposed_x

    def _stops(self, wanted: Sequence[Linear]) -> bool:
        """Whether a stage ends where a group begins of which these are wanted."""
        return any(self._seen(layer) and not _shared(layer) for layer in wanted)

    def _in_order(self, group: Sequence[Linear], wanted: Sequence[Linear]) -> Statistics | None:
        """Of the inputs as the layers pruned so far give them; of the dense model where stages cannot be had."""
        if self._staged:
            try:
                return self._staged_run(group, wanted)
            except (InputError, KeyError):  # values that no stage can start from: sequences, optionals
                self._staged = False
        return self._at_once(group[:1])

    def _staged_run(self, group: Sequence[Linear], wanted: Sequence[Linear]) -> Statistics | None:
        while self._skipped:
            self._pass_by(self._skipped.pop(0))
        first = group[0]
        name = str(first.x.name)
        # The output of several layers is rarely added to one thing; of one layer it often is.
        residual = residual_of(first) if len(group) == 1 else None
        weight = wanted[0].matrix() if len(wanted) == 1 and wanted[0].shape[1] < first.shape[0] else None
        sums = _Sums(name, "" if residual is None else str(residual.name), first.shape, weight)
        found = Statistics(first.shape[0])
        for batch in self._batches(sums):
            if batch is None:
                return None
            found.merge(batch)
        if name in self._expected[:-1] and here():
            with contextlib.suppress(InputError, KeyError):  # who asks for it will see the reason
                self._dense.begin(self._expected[self._expected.index(name) + 1])
        return found if np.trace(found.moment) > 0 else None

    def _pass_by(self, value: str) -> None:
        changed, dense = self._changed.towards(value), self._dense.towards(value)
        for _ in in_threads(lambda n: (changed(n), dense(n)), range(len(self._feeds))):
            pass

    def _batches(self, sums: _Sums) -> Iterator[Statistics | None]:
        """Go on to what is summed, in both models; the sums of each batch of feeds."""
        changed, dense = self._changed.towards(sums.name), self._dense.towards(sums.name)
        if not here() and isinstance(changed, Step) and isinstance(dense, Step) and changed.can_be_sent:
            yield from self._sent(changed, dense, sums)
            return
        numbers = range(len(self._feeds))
        each = in_threads(lambda n: sums(self._feeds[n], changed(n), dense(n)), numbers)
        yield from (sums.of(islice(each, len(batch))) for batch in in_batches(numbers))

    def _sent(self, changed: Step, dense: Step, sums: _Sums) -> Iterator[Statistics | None]:
        """The same on other machines, where that pays."""
        batches = in_batches(range(len(self._feeds)))

        def given(number: int) -> tuple[Feed, Feed, Feed]:
            mask = {k: v for k, v in self._feeds[number].items() if k == MASK_INPUT}
            return mask, changed.given(number, sums.aside), dense.given(number, sums.aside)

        items = ([given(number) for number in batch] for batch in batches)
        found = where_it_pays(_Passage(changed.leg, dense.leg, sums), items, len(batches), self._each)
        for batch, (made, summed) in zip(batches, found, strict=True):
            for number, (of_changed, of_dense) in zip(batch, made, strict=True):
                changed.take(number, of_changed)
                dense.take(number, of_dense)
            yield summed

    def _of_shared(self, layer: Linear) -> Statistics | None:
        users = [graph.find_linear(node) for node, _ in readers(layer.source)]
        return self._at_once([user for user in users if isinstance(user, Linear) and self._seen(user)])

    def _at_once(self, layers: Sequence[Linear]) -> Statistics | None:
        """From one run of the whole dense model; summed over `layers`."""
        names = {str(layer.x.name) for layer in layers}
        moments = runtime.second_moments(self._original, self._feeds, names, threads=self._threads)
        found = Statistics(layers[0].shape[0])
        for layer in layers:
            moment = moments.get(str(layer.x.name))
            if moment is not None and moment.shape == found.moment.shape:
                found.moment = found.moment + moment
        return found if np.trace(found.moment) > 0 else None


@dataclass(frozen=True)
class _Sums:
    """What is summed over the inputs of a layer.

    Attributes:
        name: of the inputs X' and X.
        aside: of what the output is added to, R' and R; empty if nothing is known.
        shape: [K, N] of the layer.
        weight: see `statistics.products`.
    """

    name: str
    aside: str
    shape: tuple[int, int]
    weight: FloatArray | None

    def __call__(self, feed: Mapping[str, Array], changed: Feed, dense: Feed) -> Products | None:
        """For one feed, of what is live in both models; None if X' is no [..., K]."""
        values = [changed[self.name], dense[self.name]]
        if self.aside in changed and changed[self.aside].shape[:-1] == values[0].shape[:-1]:
            values += [changed[self.aside], dense[self.aside]]
        x, x0, *r = counted(values, feed)
        if x.shape[-1] != self.shape[0]:
            return None
        return products(x, x0, r[1] - r[0] if r and r[0].shape[-1] == self.shape[1] else None, self.weight)

    def of(self, batch: Iterable[Products | None]) -> Statistics | None:
        """The sums of a batch; None if one of its feeds has none."""
        found: Statistics | None = Statistics(self.shape[0])
        for one in batch:  # all of them: taking one is what makes the models go on
            if one is None:
                found = None
            elif found is not None:
                found.add(one)
        return found


@dataclass(frozen=True)
class _Passage:
    """Both models on the way to a layer, and what is summed there: what other machines need to know of them."""

    changed: Leg
    dense: Leg
    sums: _Sums

    def __call__(self, batch: Sequence[tuple[Feed, Feed, Feed]]) -> tuple[list[tuple[Feed, Feed]], Statistics | None]:
        """For feeds, and what each leg is given for each: what the legs made, and the sums."""
        made: list[tuple[Feed, Feed]] = []

        def summed() -> Iterator[Products | None]:
            for feed, changed, dense in batch:
                made.append((self.changed(changed), self.dense(dense)))
                yield self.sums(feed, {**changed, **made[-1][0]}, {**dense, **made[-1][1]})

        return made, self.sums.of(summed())


def _shared(layer: Linear) -> bool:
    """Whether other layers use the weight for other inputs."""
    return any(node.inputs[0] is not layer.x for node, _ in readers(layer.source))
