"""What a model answers with other weights, or with an error added to some of its values: one session for all.

Weights are given as if they were inputs; a value has an input added to it that is 0 unless given.

ONNX lets a run override an initializer that is also named among the graph's inputs. onnxruntime then neither folds nor
packs it, so runs are slower than usual; but trying hundreds of weights needs no hundred sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.numpy_helper

from sparsify import machine
from sparsify.runtime.moments import counted
from sparsify.runtime.sessions import input_errors, open_skeleton, session_inputs
from sparsify.runtime.source import Source, opened

_NUDGE, _PLAIN = "sparsify_nudge:", "sparsify_plain:"
WORST = 1e6  # stands for a drift that is no number


class Trials:
    """A model on a few feeds, to be run again with some of its weights or values changed.

    It can be pickled, as the model is by then, if all of that fits into one message (2 GiB).
    """

    def __init__(
        self,
        model: Source,
        feeds: Sequence[Mapping[str, npt.NDArray[Any]]],
        weights: Iterable[str],
        *,
        nudged: Iterable[str] = (),
        threads: int | None = None,
    ) -> None:
        """The model runs once, as it is.

        Args:
            model: in any form; left as it is.
            feeds: to run it on, each time.
            weights: names of initializers of the main graph that may be changed.
            nudged: names of float32 values of the main graph that errors may be added to.
            threads: of onnxruntime.

        Raises:
            InputError: the model or a feed cannot be used.
        """
        weights, nudged = [*weights], [*nudged]
        self._made_of = (model, feeds, weights, nudged, threads)
        with opened(model) as skeleton:
            proto = onnx.ModelProto()
            proto.CopyFrom(skeleton.proto)
            known = {t.name: t for t in proto.graph.initializer}
            given = {v.name for v in proto.graph.input}
            for name in weights:
                if name in known and name not in given:
                    value = onnx.helper.make_tensor_value_info(name, known[name].data_type, known[name].dims)
                    proto.graph.input.append(value)
            for name in nudged:
                _nudge(proto.graph, name)
            self._session = open_skeleton(replace(skeleton, proto=proto), threads=threads, spin=False)
        self._feeds = [(feed, session_inputs(self._session, feed)) for feed in feeds]
        self._names = [o.name for o in self._session.get_outputs() if o.type == "tensor(float)"]
        self._base = [self._run(inputs, {}) for _, inputs in self._feeds]

    def __reduce__(self) -> tuple[Any, ...]:
        model, feeds, weights, nudged, threads = self._made_of
        with opened(model) as skeleton:
            data = skeleton.proto.SerializeToString()
        # onnxruntime's own choice depends on the machine.
        return _opened_again, (data, feeds, weights, nudged, threads or machine.threads())

    def drift(
        self,
        changes: Mapping[str, npt.NDArray[Any]],
        nudges: Sequence[Mapping[str, npt.NDArray[np.float32]]] | None = None,
    ) -> float:
        """||y' - y||^2 / ||y||^2 with weights `changes` by name, as stored; the mean over the float outputs.

        `nudges`, one a feed, are errors by the name of the value that they are added to.

        Rows that a feed's mask calls padding do not count, nor do those where y is not finite. 0 without float outputs.
        """
        gone, energy = np.zeros(len(self._names)), np.zeros(len(self._names))
        added = nudges or [{}] * len(self._feeds)
        for (feed, inputs), base, errors in zip(self._feeds, self._base, added, strict=True):
            given = {**changes, **{_NUDGE + name: error for name, error in errors.items()}}
            for i, (y, y0) in enumerate(zip(self._run(inputs, given), base, strict=True)):
                if y.shape != y0.shape:
                    return WORST
                gap, own = _energies(y, y0, feed)
                gone[i] += gap
                energy[i] += own
        shares = np.divide(gone, energy, out=np.zeros_like(gone), where=energy > 0)
        return float(np.minimum(np.nan_to_num(shares, nan=WORST), WORST).mean()) if len(shares) else 0.0

    def _run(self, inputs: Mapping[str, Any], changes: Mapping[str, Any]) -> list[npt.NDArray[np.float32]]:
        with input_errors("a feed"):
            return list(self._session.run(self._names, {**inputs, **changes}))


def _opened_again(
    data: bytes,
    feeds: Sequence[Mapping[str, npt.NDArray[Any]]],
    weights: Sequence[str],
    nudged: Sequence[str],
    threads: int,
) -> Trials:
    return Trials(data, feeds, weights, nudged=nudged, threads=threads)


def _nudge(graph: onnx.GraphProto, name: str) -> None:
    """Have an input added to `name`, 0 unless given."""
    for node in graph.node:
        if name in node.output:
            node.output[:] = [_PLAIN + o if o == name else o for o in node.output]
    graph.node.add(op_type="Add", input=[_PLAIN + name, _NUDGE + name], output=[name])
    graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((), np.float32), _NUDGE + name))
    graph.input.append(onnx.helper.make_tensor_value_info(_NUDGE + name, onnx.TensorProto.FLOAT, None))


def _energies(
    y: npt.NDArray[np.float32], y0: npt.NDArray[np.float32], feed: Mapping[str, npt.NDArray[Any]]
) -> tuple[float, float]:
    """||y - y0||^2 and ||y0||^2 over the rows that count."""
    if not y0.ndim:
        y, y0 = y.reshape(1), y0.reshape(1)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.asarray(y - y0, np.float32)
    # `counted` drops rows that are not finite: what went wrong in y' alone must not be dropped.
    gap = np.where(np.isfinite(gap) | ~np.isfinite(y0), gap, np.float32(np.sqrt(WORST) * 1e3))
    pair = counted([gap, y0], feed)
    return tuple(float(np.square(rows, dtype=np.float64).sum()) for rows in pair)  # type: ignore[return-value]
