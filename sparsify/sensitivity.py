"""How much the whole model drifts when one layer alone is pruned: measured, layer by layer, and what follows from it.

Some feeds say what the layers' inputs are (their second moments), others are what the drift is measured on. Each weight
is pruned at a few sparsities as `prune` would do it, only quicker, and put into the otherwise dense model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify import runtime, storage
from sparsify.graph import FloatArray, Linear, find_linear, readers
from sparsify.parallel import in_order, in_threads
from sparsify.patterns import Pattern
from sparsify.pruning import Feed, laid_out
from sparsify.resume import Saved
from sparsify.solvers import admm, magnitude
from sparsify.solvers.allocate import Curve, allocate
from sparsify.solvers.factors import Factors
from sparsify.solvers.symmetric import Symmetric

Goal = tuple[Pattern, float]  # a pattern, and the share of zeros it is to have

PROBES = 3  # feeds that the drift is measured on; a quarter of them at most
_SPREAD = (0.5, 1.0, 1.5)  # densities that are tried, of the one aimed at
_STEPS = 16  # sparsities to choose from, over a density of 1


@dataclass(frozen=True)
class Sensitivity:
    """What the model loses by one weight.

    Attributes:
        source: the weight.
        names: of the layers that use it.
        shape: (K, N).
        curve: drift of the model over sparsity of the weight.
    """

    source: ir.Value
    names: tuple[str, ...]
    shape: tuple[int, int]
    curve: Curve


def measure(
    model: ir.Model,
    layers: Sequence[Linear],
    feeds: Sequence[Feed],
    goals: Sequence[Goal],
    *,
    memory: int,
    threads: int | None = None,
    saved: Saved | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> list[Sensitivity]:
    """Sensitivities of the weights of `layers`, in their order; weights in Constant nodes and subgraphs are left out.

    Args:
        model: dense; left as it is.
        layers: of the main graph; those that share a weight share its sensitivity.
        feeds: what the layers see; with fewer than four all of them serve both purposes.
        goals: patterns and sparsities to try, by rising sparsity.
        memory: bytes for second moments; where those of all layers need more, the model runs several times.
        threads: of onnxruntime.
        saved: where drifts are kept, of work that may be interrupted.
        progress: told after each weight.

    Raises:
        InputError: the model does not run on the feeds.
    """
    by_source: dict[ir.Value, list[Linear]] = {}
    for layer in layers:
        by_source.setdefault(layer.source, []).append(layer)
    known = {source: users for source, users in by_source.items() if _open(model, source, users)}
    learn, probes = _divided(feeds)
    trials = runtime.Trials(model, probes, [str(source.name) for source in known], threads=threads)
    found: dict[ir.Value, Sensitivity] = {}
    for chunk in _chunks(known, memory):
        kept = {s: drifts for s in chunk if (drifts := _kept(saved, s)) is not None}
        names = {str(user.x.name) for source in chunk if source not in kept for user in known[source]}
        moments = runtime.second_moments(model, learn, names, threads=threads) if names else {}
        jobs: dict[tuple[str, ...], list[ir.Value]] = {}  # by the values that are read: they share a factorisation
        for source in (s for s in chunk if s not in kept):
            jobs.setdefault(tuple(sorted({str(user.x.name) for user in known[source]})), []).append(source)

        progress(len(found), len(known), "sensitivities")
        # Weights are independent, and what they share is only read: any number of workers finds the same.
        spread = in_threads if storage.is_large(model.graph) else partial(in_order, count=len(jobs))
        measured = spread(
            partial(_work, goals=[*goals], trials=trials),
            (
                _Job([Symmetric(moments[x]) for x in read if x in moments], [_Weight.of(known[s][0]) for s in sources])
                for read, sources in jobs.items()
            ),
        )
        for sources, of_job in zip(jobs.values(), measured, strict=True):
            for source, drifts in zip(sources, of_job, strict=True):
                kept[source] = drifts
                if saved is not None:
                    saved.save(_step(source), {}, drifts)
                progress(len(found) + len(kept), len(known), f"sensitivity of {known[source][0].name}")
        for source, drifts in kept.items():
            users = known[source]
            curve = Curve(users[0].tensor.size, tuple(s for _, s in goals), tuple(drifts))
            found[source] = Sensitivity(source, tuple(user.name for user in users), users[0].shape, curve)
    return [found[source] for source in known]


def plan(found: Sequence[Sensitivity], goal: Goal, limit: float = float("inf")) -> dict[ir.Value, Goal]:
    """A pattern and a sparsity for each weight.

    Args:
        found: measured at `tried(goal)`.
        goal: the pattern, and the average sparsity to reach.
        limit: of the sum of the drifts; when finite, that and not the average is where it stops.
    """
    options = choices(goal)
    target = goal[1] if limit == float("inf") else 1.0
    chosen = allocate([one.curve for one in found], [s for _, s in options], target, limit)
    by_sparsity = {s: (pattern, s) for pattern, s in options}
    return {one.source: by_sparsity[s] for one, s in zip(found, chosen, strict=True)}


def tried(goal: Goal) -> list[Goal]:
    """Where to measure for an allocation around `goal`: half its density, its own, one and a half; by sparsity."""
    pattern, sparsity = goal
    if pattern.m:
        counts = {min(max(round(pattern.n * part), 1), pattern.m - 1) for part in _SPREAD}
        return [_goal(pattern, n) for n in sorted(counts, reverse=True)]
    densities = {min((1 - sparsity) * part, (2 - sparsity) / 2) for part in _SPREAD}
    return [(pattern, 1 - d) for d in sorted(densities, reverse=True)]


def choices(goal: Goal) -> list[Goal]:
    """What an allocation may choose from, within what was tried; `goal` among it."""
    pattern, sparsity = goal
    ends = [s for _, s in tried(goal)]
    if pattern.m:
        step = max(pattern.m // _STEPS, 1)
        counts = set(range(step, pattern.m, step)) | {pattern.n}
        options = [_goal(pattern, n) for n in sorted(counts, reverse=True)]
    else:
        options = [(pattern, s) for s in sorted({i / _STEPS for i in range(1, _STEPS)} | {sparsity})]
    return [(p, s) for p, s in options if ends[0] <= s <= ends[-1]]


def _goal(pattern: Pattern, n: int) -> Goal:
    changed = Pattern(n, pattern.m)
    assert changed.sparsity is not None  # it has blocks
    return changed, changed.sparsity


def _open(model: ir.Model, source: ir.Value, users: Sequence[Linear]) -> bool:
    """Whether the weight can be overridden and all that read it are layers whose inputs can be seen."""
    every = [find_linear(node) for node, _ in readers(source)]
    seen = all(isinstance(u, Linear) and u.node.graph is model.graph and not u.transposed_x for u in every)
    same = len({user.transposed for user in users}) == 1
    return seen and same and model.graph.initializers.get(str(source.name)) is source


def _divided(feeds: Sequence[Feed]) -> tuple[list[Feed], list[Feed]]:
    """Feeds to learn from, and others spread over them to measure on."""
    if len(feeds) < 4:
        return [*feeds], [*feeds]
    number = min(PROBES, len(feeds) // 4)
    probes = {(2 * i + 1) * len(feeds) // (2 * number) for i in range(number)}
    return [f for i, f in enumerate(feeds) if i not in probes], [feeds[i] for i in sorted(probes)]


def _chunks(known: Mapping[ir.Value, Sequence[Linear]], memory: int) -> Iterator[list[ir.Value]]:
    """Weights whose second moments (8 K^2 bytes for each value that is read, twice while they are added
    up) fit into `memory` together."""
    chunk: list[ir.Value] = []
    read: set[str] = set()
    size = 0
    for source, users in known.items():
        new = {str(user.x.name) for user in users} - read
        more = 16 * users[0].shape[0] ** 2 * len(new)
        if chunk and size + more > memory:
            yield chunk
            chunk, read, size = [], set(), 0
            new, more = {str(u.x.name) for u in users}, 16 * users[0].shape[0] ** 2 * len({u.x.name for u in users})
        chunk.append(source)
        read |= new
        size += more
    if chunk:
        yield chunk


def _factors(moments: Sequence[npt.NDArray[np.float64]]) -> Factors | None:
    """Of the sum; None where data did not reach the layers."""
    if not moments or not np.trace(total := np.sum(moments, axis=0)) > 0:
        return None
    return Factors(total)


def _step(source: ir.Value) -> str:
    return f"drift-{hashlib.sha256(str(source.name).encode()).hexdigest()[:32]}"


def _kept(saved: Saved | None, source: ir.Value) -> list[float] | None:
    """What an earlier run measured."""
    if saved is None or (step := saved.load(_step(source))) is None:
        return None
    return [float(drift) for drift in step[1]]


@dataclass(frozen=True)
class _Weight:
    """A weight, apart from its model.

    Attributes:
        name: of the initializer.
        matrix: W [K, N].
        stored: what it is in the model, for another W' [K, N].
    """

    name: str
    matrix: FloatArray
    stored: Callable[[FloatArray], npt.NDArray[Any]]

    @classmethod
    def of(cls, layer: Linear) -> _Weight:
        tensor = layer.tensor
        stored = partial(laid_out, transposed=layer.transposed, dtype=tensor.dtype.numpy(), shape=tensor.shape.numpy())
        return cls(str(layer.source.name), layer.matrix(), stored)


@dataclass(frozen=True)
class _Job:
    """Weights that are multiplied with the same values, and second moments of these."""

    moments: list[Symmetric]
    weights: list[_Weight]


def _work(job: _Job, goals: Sequence[Goal], trials: runtime.Trials) -> list[list[float]]:
    """Drifts by weight and goal."""
    factors = _factors([moment.matrix for moment in job.moments])
    return [_drifts(weight, factors, goals, trials) for weight in job.weights]


def _drifts(weight: _Weight, factors: Factors | None, goals: Sequence[Goal], trials: runtime.Trials) -> list[float]:
    """Of the model, with the weight pruned to each of `goals`."""
    drifts = []
    for pattern, sparsity in goals:
        if factors is None:
            _, pruned = magnitude.prune(weight.matrix, pattern, sparsity)
        else:
            _, pruned = admm.prune(weight.matrix, factors, pattern, sparsity, quick=True)
        drifts.append(trials.drift({weight.name: weight.stored(pruned)}))
    return drifts
