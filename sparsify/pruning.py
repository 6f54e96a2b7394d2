"""Linear layers in the order in which they can be pruned, and what calibration data says about each.

Layers that read the same value form a group. Groups go in graph order: when a group's turn comes all layers upstream
are done, and both the dense model and the changed one have run as far as its inputs (see `runtime.Stages`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify import graph, machine, modelio, runtime
from sparsify.errors import InputError
from sparsify.graph import FloatArray, Linear, readers, sole_user
from sparsify.parallel import in_order, in_threads
from sparsify.runtime import Stages, counted
from sparsify.runtime.moments import WIDE
from sparsify.solvers.statistics import Products, Statistics, products

Feed = Mapping[str, npt.NDArray[Any]]
_Batch = list[npt.NDArray[np.float32]]
FEEDS = "calibration"  # key of `model.meta`: the feeds to learn from


def groups(model: ir.Model, layers: Sequence[Linear]) -> list[list[Linear]]:
    """The layers of `model` by the value that they read, in the order in which these values are computed."""
    found: dict[ir.Value, list[Linear]] = {}
    for layer in layers:
        found.setdefault(layer.x, []).append(layer)
    place = {node: i for i, node in enumerate(model.graph)}

    def position(x: ir.Value) -> int:
        producer = x.producer()
        return -1 if producer is None else place.get(producer, -1)

    return [found[x] for x in sorted(found, key=position)]


class Learner:
    """Statistics of the inputs of linear layers of the main graph of `model`, which is pruned meanwhile."""

    def __init__(self, model: ir.Model, feeds: Sequence[Feed], *, memory: int, threads: int | None = None) -> None:
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
        each = max(self._threads // max(len(feeds), 1), 1)
        self._dense = Stages(self._original, feeds, threads=each, memory=memory // 2)
        self._changed = Stages(model, feeds, threads=each, memory=memory // 2)
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
            for _ in self._run(self._skipped.pop(0)):
                pass
        first = group[0]
        name, inputs = str(first.x.name), first.shape[0]
        # The output of several layers is rarely added to one thing; of one layer it often is.
        residual = residual_of(first) if len(group) == 1 else None
        aside = None if residual is None else str(residual.name)
        weight = wanted[0].matrix() if len(wanted) == 1 and wanted[0].shape[1] < inputs else None

        def batches() -> Iterator[_Batch]:
            for feed, (changed, dense) in zip(self._feeds, self._run(name), strict=True):
                values = [changed[name], dense[name]]
                if aside is not None and aside in changed and changed[aside].shape[:-1] == values[0].shape[:-1]:
                    values += [changed[aside], dense[aside]]
                yield counted(values, feed)

        summed = partial(_summed, shape=first.shape, weight=weight)
        found = Statistics(inputs)
        for batch in (in_order if inputs >= WIDE else in_threads)(summed, batches()):
            if batch is None:
                return None
            found.add(batch)
        if name in self._expected[:-1]:
            with contextlib.suppress(InputError, KeyError):  # who asks for it will see the reason
                self._dense.begin(self._expected[self._expected.index(name) + 1])
        return found if np.trace(found.moment) > 0 else None

    def _run(self, value: str) -> Iterator[tuple[Feed, Feed]]:
        """What is live at `value`, in the changed and in the dense model, feed by feed."""
        changed, dense = self._changed.towards(value), self._dense.towards(value)
        return in_threads(lambda number: (changed(number), dense(number)), range(len(self._feeds)))

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


def _summed(batch: _Batch, shape: tuple[int, int], weight: FloatArray | None) -> Products | None:
    """Of X', X and perhaps R', R of a layer [K, N]; None where they are not of its shape."""
    x, x0, *r = batch
    if x.shape[-1] != shape[0]:
        return None
    return products(x, x0, r[1] - r[0] if r and r[0].shape[-1] == shape[1] else None, weight)


def stored(layer: Linear, weight: FloatArray) -> npt.NDArray[Any]:
    """W [K, N] in the orientation, the shape and the type in which the weight of `layer` is stored."""
    return laid_out(weight, layer.transposed, layer.tensor.dtype.numpy(), layer.tensor.shape.numpy())


def laid_out(weight: FloatArray, transposed: bool, dtype: npt.DTypeLike, shape: Sequence[int]) -> npt.NDArray[Any]:
    """W [K, N], or its transpose, as an array of that type and shape."""
    oriented = (weight.T if transposed else weight).astype(dtype, copy=False)
    return np.ascontiguousarray(oriented).reshape(shape)


def bias_of(layer: Linear) -> ir.Value | None:
    """The constant [N] that is added to the layer's output, if it may change: nobody else reads it."""
    if layer.alpha != 1:
        return None
    if layer.bias is not None:
        bias = layer.bias if layer.beta == 1 else None
    else:
        add = _adder(layer.output)
        bias = next((v for v in add.inputs if v is not None and v is not layer.output), None) if add else None
    if bias is None or not bias.is_initializer() or bias.is_graph_input() or bias.is_graph_output():
        return None
    tensor = bias.const_value
    fits = tensor is not None and tensor.dtype is ir.DataType.FLOAT and tuple(tensor.shape.numpy()) == (layer.shape[1],)
    return bias if fits and len(bias.uses()) == 1 else None


def shift_bias(bias: ir.Value, shift: FloatArray) -> None:
    """Add `shift` [N] to a constant."""
    tensor = bias.const_value
    assert tensor is not None  # see `bias_of`
    bias.const_value = ir.tensor(np.asarray(tensor.numpy() + shift, np.float32), name=tensor.name)


def residual_of(layer: Linear) -> ir.Value | None:
    """What the layer's output, its bias added, is added to; None if it is not."""
    if layer.alpha != 1:
        return None
    value = layer.output
    if (add := _adder(value)) is not None and any(graph.is_constant(v) for v in add.inputs):
        value = add.outputs[0]
        add = _adder(value)
    if add is None:
        return None
    return next((v for v in add.inputs if v is not None and v is not value), None)


def _adder(value: ir.Value) -> ir.Node | None:
    """The Add that alone reads `value`."""
    user = sole_user(value)
    return user if user is not None and user.op_type == "Add" and user.domain == "" else None


def _shared(layer: Linear) -> bool:
    """Whether other layers use the weight for other inputs."""
    return any(node.inputs[0] is not layer.x for node, _ in readers(layer.source))
