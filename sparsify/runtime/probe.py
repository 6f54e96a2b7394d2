"""Looking inside a model: its intermediate values become outputs of a copy, the model itself stays as it is.

Only values of the main graph can be seen; those inside subgraphs and functions have no single value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import onnx
import onnx_ir as ir

from sparsify import machine, storage
from sparsify.data import Array, Feed
from sparsify.runtime.sessions import Session, open_skeleton, run, session
from sparsify.runtime.source import Skeleton, Source, opened

_SHAPE_PREFIX = "sparsify_shape_of:"


@dataclass(frozen=True)
class Probe:
    """A model opened for looking inside; see `probe`."""

    skeleton: Skeleton
    threads: int | None
    native: bool
    deterministic: bool = False

    @property
    def values(self) -> list[str]:
        """Names of what the nodes of the main graph compute, in graph order."""
        return [name for node in self.skeleton.proto.graph.node for name in node.output if name]

    def session(self, values: Iterable[str]) -> Session:
        """A session whose outputs are `values`, and those alone. Each must be one of `self.values`."""
        proto = self._copy()
        proto.graph.output.extend(onnx.ValueInfoProto(name=v) for v in values)  # onnxruntime infers the types
        return self.open(proto)

    def shapes(self, feed: Mapping[str, Array], values: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """Shapes of `values`, each a tensor of `self.values`, in one run that keeps none of them."""
        proto = self._copy()
        for value in values:
            shape = _SHAPE_PREFIX + value
            proto.graph.node.add(op_type="Shape", input=[value], output=[shape])
            proto.graph.output.append(onnx.helper.make_tensor_value_info(shape, onnx.TensorProto.INT64, None))
        if not proto.graph.output:
            return {}
        found = run(self.open(proto), feed)
        return {name.removeprefix(_SHAPE_PREFIX): tuple(int(d) for d in shape) for name, shape in found.items()}

    def _copy(self) -> onnx.ModelProto:
        proto = onnx.ModelProto()
        proto.CopyFrom(self.skeleton.proto)
        del proto.graph.output[:]
        return proto

    def open(self, proto: onnx.ModelProto) -> Session:
        """A session of `proto`, an edited copy of the skeleton's or a part of it, with the probe's options."""
        return open_skeleton(
            replace(self.skeleton, proto=proto),
            threads=self.threads,
            native=self.native,
            deterministic=self.deterministic,
        )


@contextmanager
def probe(
    model: Source, *, threads: int | None = None, native: bool = True, deterministic: bool = False
) -> Iterator[Probe]:
    """Open `model` for looking inside. Weights too large for memory are written out once, not once a session."""
    with opened(model) as skeleton:
        yield Probe(skeleton, threads, native, deterministic)


def observe_rows(
    model: Source, feed: Mapping[str, Array], values: Iterable[str], *, threads: int | None = None, native: bool = True
) -> dict[str, tuple[int, ...]]:
    """Shapes of named values in one run on `feed`; values that the main graph does not have are left out.

    Args:
        model: in any form; left as it is.
        feed: one feed.
        values: names of tensors: inputs, initializers and what nodes compute.

    Raises:
        InputError: the model or the feed cannot be used.
    """
    wanted = set(values)
    if isinstance(model, ir.Model) and storage.is_large(model.graph):
        stored = model.graph.initializers
        known = {n: tuple(t.shape.numpy()) for n in wanted if n in stored and (t := stored[n].const_value) is not None}
        made: dict[str, tuple[int, ...]] = session(model, threads=threads, native=native).shapes(feed, wanted)
        return known | made
    with probe(model, threads=threads, native=native) as inside:
        graph = inside.skeleton.proto.graph
        shapes = {t.name: tuple(t.dims) for t in graph.initializer if t.name in wanted}
        shapes |= {i.name: feed[i.name].shape for i in graph.input if i.name in wanted and i.name in feed}
        return shapes | inside.shapes(feed, [v for v in inside.values if v in wanted])


def capture(
    model: Source,
    feeds: Iterable[Mapping[str, Array]],
    values: Iterable[str],
    *,
    threads: int | None = None,
    native: bool = True,
) -> Iterator[Feed]:
    """The named values for one feed after another; only one feed's values exist at a time.

    Values that the main graph does not have are left out. Arguments as in `observe_rows`.
    """
    yield from map(View(model, values, threads=threads, native=native), feeds)


class View:
    """`capture` for a feed at a time. It can be pickled where all of the model fits into one message (2 GiB)."""

    def __init__(
        self, model: Source, values: Iterable[str], *, threads: int | None = None, native: bool = True
    ) -> None:
        """Arguments as in `observe_rows`; InputError if onnxruntime refuses the model."""
        wanted = set(values)
        self._made_of = (model, wanted, threads, native)
        with probe(model, threads=threads, native=native) as inside:
            computed = [v for v in inside.values if v in wanted]
            self._given = [i.name for i in inside.skeleton.proto.graph.input if i.name in wanted]
            self._session = inside.session(computed) if computed else None

    def __call__(self, feed: Mapping[str, Array]) -> Feed:
        """The values for one feed, by name."""
        found = {} if self._session is None else run(self._session, feed)
        return found | {name: feed[name] for name in self._given if name in feed}

    def __reduce__(self) -> tuple[Any, ...]:
        model, wanted, threads, native = self._made_of
        with opened(model) as skeleton:
            data = skeleton.proto.SerializeToString()
        # onnxruntime's own choice depends on the machine.
        return _opened_again, (data, wanted, threads or machine.threads(), native)


def _opened_again(data: bytes, values: set[str], threads: int, native: bool) -> View:
    return View(data, values, threads=threads, native=native)
