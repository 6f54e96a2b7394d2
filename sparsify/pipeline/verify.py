"""Is the model still a model, and does it still answer? Asked before the first pass and after every change.

A large model (`storage.is_large`) is held against the checker after every change, but run only once, after the last
one: to run it all its weights are read and packed, which takes as long as making them. The result is verified as that
of any other model is; what is lost is which of the passes broke it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from sparsify import modelio, runtime, storage
from sparsify.errors import InputError, SparsifyError

Feed = Mapping[str, npt.NDArray[Any]]


class PassError(SparsifyError):
    """A pass failed or broke the model: a bug of ours. Says which pass, and after which others."""


class BrokenModelError(Exception):
    """The model is not what it was; the text says how."""


class Verifier:
    """Compares a model with what it was at the start.

    Args:
        base: the model as it came.
        sample: one feed; without one only the checker is asked.
        expected: what `base` answers to `sample`, where that is known.

    Raises:
        InputError: onnxruntime cannot run `base` on `sample`.
    """

    def __init__(self, base: ir.Model, sample: Feed | None, expected: Feed | None = None) -> None:
        self._sample = sample
        self._runs_last = storage.is_large(base.graph)
        self.is_unrun = False  # whether `finish` is still to be called
        proto = _message(base)
        try:
            _check(base, proto)
            self._checks = True
        except (onnx.checker.ValidationError, ValueError):  # the latter for what its parser cannot take
            # onnxruntime runs models that the checker refuses. It cannot be held against the passes.
            self._checks = False
        if expected is None and sample is not None:
            expected = _answers(base if proto is None else proto, sample)
        self._expected = expected or {}

    def verify(self, model: ir.Model) -> None:
        """Raise BrokenModelError where the checker or onnxruntime refuses `model`, or its answers changed in
        name, type or shape, or are no longer finite where they were.

        Of a large model only the checker's word is had here: call `finish` after the last pass.
        """
        proto = _message(model)
        if self._checks:
            try:
                _check(model, proto)
            except onnx.checker.ValidationError as error:
                raise BrokenModelError(f"onnx.checker refuses the model: {_first_line(error)}") from error
        self.is_unrun = self._sample is not None
        if not self._runs_last:
            self._run(model if proto is None else proto)

    def finish(self, model: ir.Model) -> None:
        """Run `model` if it has not been run since `verify` was asked last; raises what `verify` does."""
        if self.is_unrun:
            self._run(model)

    def _run(self, model: modelio.Source) -> None:
        self.is_unrun = False
        if self._sample is None:
            return
        try:
            answers = _answers(model, self._sample)
        except InputError as error:  # the input could be run: what cannot be run any more is our doing
            raise BrokenModelError(f"onnxruntime cannot run the model: {error.what}") from error
        if list(answers) != list(self._expected):
            raise BrokenModelError(f"outputs are {list(answers)}, were {list(self._expected)}")
        for name, expected in self._expected.items():
            _compare(name, expected, answers[name])


def _compare(name: str, expected: Any, answer: Any) -> None:
    if not isinstance(expected, np.ndarray) or not isinstance(answer, np.ndarray):
        return  # sequences and maps have no shape to compare
    if (expected.dtype, expected.shape) != (answer.dtype, answer.shape):
        was, now = (f"{a.dtype}{list(a.shape)}" for a in (expected, answer))
        raise BrokenModelError(f"output `{name}` is {now}, was {was}")
    if expected.dtype.kind == "f" and not np.isfinite(answer[np.isfinite(expected)]).all():
        raise BrokenModelError(f"output `{name}` is no longer finite")


def _message(model: ir.Model) -> onnx.ModelProto | None:
    """The model as one message, made once for all who look at it; None when it is too large."""
    small = modelio.fits_message(model) and not storage.is_large(model.graph)
    return modelio.to_proto(model) if small else None


def _answers(model: modelio.Source, sample: Feed) -> dict[str, Any]:
    return dict(runtime.run(runtime.session(model), dict(sample)))


def _check(model: ir.Model, proto: onnx.ModelProto | None) -> None:
    if proto is not None:
        onnx.checker.check_model(proto)
        return
    onnx.checker.check_model(modelio.outline(model))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
