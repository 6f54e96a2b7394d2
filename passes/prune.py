"""Zero the weights that the outputs miss least."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from sparsify import parallel, sensitivity, storage
from sparsify.calibration import Learner
from sparsify.convolutions import window_of
from sparsify.errors import UsageError
from sparsify.graph import FloatArray, Linear, find_linear, node_name, readers
from sparsify.machine import learning_memory
from sparsify.parallel import one_blas_thread
from sparsify.patterns import Pattern
from sparsify.pruning import FEEDS, Feed, bias_of, groups, shift_bias, stored
from sparsify.resume import Saved
from sparsify.rewrite import Change, Event, Pass, Refusal, chosen, layers
from sparsify.sensitivity import Goal
from sparsify.solvers import admm, best, magnitude, obs, wanda
from sparsify.solvers.factors import Factors
from sparsify.solvers.moments import relative_error
from sparsify.solvers.quantize import LEVELS
from sparsify.solvers.statistics import Statistics

METHODS = ("auto", "admm", "obs", "wanda", "magnitude")
_HALF = Pattern(32, 64)

_Outcome = tuple[str, dict[str, Any]]  # what was done, with facts


@dataclass
class _Work:
    """One run of the pass: who knows the data, what each weight is to become, and what was done or why nothing was."""

    learner: Learner | None = None
    goals: Mapping[ir.Value, Goal] = field(default_factory=dict)
    done: dict[ir.Value, _Outcome | str] = field(default_factory=dict)
    planned: set[ir.Value] = field(default_factory=set)  # weights that were looked at


@dataclass(frozen=True)
class Prune(Pass):
    """Zeroes weights of linear layers under a pattern, and refits the others where data says what they do.

    What:
        The weight keeps its name, shape and place; values change to zero. It pays once a sparse pass follows.
    When it fires:
        Every MatMul and Gemm with a constant fp32 matrix of `min_size` weights or more. A weight that several
        layers share is pruned once and reported for each. N:M runs along the layer's inputs, whichever way
        the weight is stored.
    When it refuses:
        The weight is smaller, already as sparse, holds a NaN or an infinity, is an output of the model, is read
        by something that is no linear layer (an embedding, say), or is shared by layers that use it in both
        orientations under N:M. `auto` leaves what was a convolution where no data reaches it.
    Mathematics:
        With the second moment H = sum x x^T of a layer's inputs, W' minimises tr((W' - W)^T H (W' - W)), what the
        change does to the outputs: by ADMM over masks and weights and a least-squares refit (`admm`,
        see `sparsify.solvers.admm`), or by the optimal brain surgeon (`obs`, see `sparsify.solvers.obs`).
        `wanda` keeps the largest |w| sqrt(H_kk) (see `sparsify.solvers.wanda`); without data W' = W * M keeps the
        largest |w| (`magnitude`, see `sparsify.solvers.magnitude`). `auto` is, column by column, the better of `admm`
        and `obs` for the same H and target (see `sparsify.solvers.best`) in layers that data reaches, else `magnitude`.
        Layers go in graph order, and x are the inputs that the layers pruned before really give. `admm` aims at
        the outputs of the dense model, a share `correction` of the way, at its residual stream too, and lets the
        layer's bias take up the means (see `sparsify.solvers.statistics`); what it keeps lies on a grid of
        `levels` integers a column that `sparse-int8` finds again (see `sparsify.solvers.rounding`).
        `uneven` measures how far the whole model drifts when one layer alone is pruned, at three sparsities, and gives
        out the zeros so that these drifts sum up to the least (see `sparsify.sensitivity`,
        `sparsify.solvers.allocate`).
    Cost:
        `admm`: two runs of the model on the data, and for each layer seven inverses of H and 110 K^2 N operations:
        about a second a layer of 384 x 1536. `uneven`: three
        more runs of the model on three feeds for each layer. None at run time.
    Drift:
        On all-MiniLM-L6-v2, 36 layers at 32:64 and int8: mean cosine to the dense embedding on held-out text .96 with
        `auto`, .92 with `obs` (benchmarks/accuracy.py; docs/accuracy.md has more).
    Source:
        Han, Pool, Tran, Dally, "Learning both Weights and Connections for Efficient Neural Networks", 2015;
        Frantar, Alistarh, "SparseGPT", 2023; Boža, "Fast and Effective Weight Update", 2024; Meng et al., "ALPS", 2024.
    """

    name: ClassVar[str] = "prune"

    pattern: Pattern = _HALF  # `unstructured`, `per-column`, N:M or `4x1` blocks
    sparsity: float = 0.0  # share of zeros; N:M implies its own
    min_size: int = 4096  # weights; smaller matrices are left alone
    method: str = "auto"  # auto, admm, obs, wanda or magnitude
    levels: int = LEVELS  # `admm` rounds what it keeps to this many steps on either side of 0; 0 keeps real numbers
    correction: float = 0.5  # share of the error of earlier layers that `admm` makes good; 0 to 1
    memory: int = 0  # MiB to keep while calibrating: activations beyond go to disk; a quarter of the machine's if 0
    uneven: bool = False  # give each layer the sparsity that costs the model least; `pattern`, `sparsity` are the mean
    drift: float = 0.0  # with `uneven`: not that mean but the most zeros whose measured drifts sum up to this at most

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(
                f"there is no method `{self.method}`", where="pass `prune`", hint=f"one of {', '.join(METHODS)}"
            )
        if not 0 <= self.levels <= LEVELS or not 0 <= self.correction <= 1 or self.memory < 0:
            raise UsageError(
                f"levels={self.levels}, correction={self.correction:g}, memory={self.memory} are out of range",
                where="pass `prune`",
                hint=f"levels is 0 to {LEVELS}, correction 0 to 1, memory not negative",
            )
        if self.drift < 0 or (self.drift > 0 and not self.uneven):
            raise UsageError(
                f"drift={self.drift:g} has no use"
                if self.drift > 0
                else f"`drift` must not be negative: {self.drift:g}",
                where="pass `prune`",
                hint="prune{uneven=true,drift=0.05} prunes as much as a relative squared error of 0.05 lets it",
            )
        if self.uneven and not self.wants_data:
            raise UsageError(
                "`uneven` needs data, which `magnitude` does not look at", where="pass `prune`", hint="method=auto"
            )
        implied = self.pattern.sparsity
        if implied is None and not 0 < self.sparsity < 1:
            raise UsageError(
                f"`sparsity` must be between 0 and 1, got {self.sparsity:g}",
                where="pass `prune`",
                hint="prune{pattern=unstructured,sparsity=0.9} keeps one weight in ten",
            )
        if implied is not None and self.sparsity not in (0, implied):
            raise UsageError(
                f"pattern {self.pattern} means sparsity {implied:g}, not {self.sparsity:g}",
                where="pass `prune`",
                hint="leave `sparsity` out, or take pattern=unstructured",
            )

    @property
    def wants_data(self) -> bool:
        """Whether feeds in `model.meta` would be used."""
        return self.method != "magnitude"

    @property
    def target(self) -> float:
        """Share of zeros aimed at."""
        implied = self.pattern.sparsity
        return self.sparsity if implied is None else implied

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        found = layers(model)
        feeds = model.meta.get(FEEDS) if self.wants_data else None
        memory = learning_memory(self.memory)
        linear = [layer for layer in found if isinstance(layer, Linear)]
        with one_blas_thread():
            done = self._prune_all(model, linear, feeds, memory)
        for layer in found:
            if isinstance(layer, Refusal):
                yield layer
                continue
            outcome = done[layer.source]
            facts = {"shape": list(layer.shape)}
            if isinstance(outcome, str):
                yield Refusal(layer.name, outcome, facts)
            else:
                yield Change(layer.name, outcome[0], facts | outcome[1])

    def _prune_all(
        self, model: ir.Model, linear: Sequence[Linear], feeds: Sequence[Feed] | None, memory: int
    ) -> dict[ir.Value, _Outcome | str]:
        """Prune the weights of `linear`; what was done to each, or why nothing was."""
        picked = {layer: chosen(layer) for layer in linear}
        plan = {x.source: (c.pattern, c.pattern.sparsity or 0.0) for x, c in picked.items() if c and c.pattern}
        if not feeds:
            work = _Work(goals=plan)
            for group in groups(model, linear):
                self._prune_group(group, self._wanted(group, work), work)
            return work.done
        saved = Saved.of(str(self), model, feeds)
        goals = self._goals(model, linear, feeds, memory, saved) if self.uneven else plan
        with contextlib.closing(Learner(model, feeds, memory=memory)) as learner:
            work = _Work(learner, goals)
            road = hashlib.sha256()  # a group becomes what it was told to, behind what others were told before
            steps = [(group, wanted) for group in groups(model, linear) if (wanted := self._wanted(group, work))]
            learner.expect((group, [*wanted.values()]) for group, wanted in steps)
            for group, wanted in steps:
                for source in wanted:
                    pattern, sparsity = self._goal(source, work)
                    road.update(repr((source.name, str(pattern), sparsity)).encode())
                self._prune_or_resume(group, wanted, work, saved, road.hexdigest()[:32])
        saved.clear()
        return work.done

    def _goals(
        self, model: ir.Model, linear: Sequence[Linear], feeds: Sequence[Feed], memory: int, saved: Saved
    ) -> dict[ir.Value, Goal]:
        """What each weight is pruned to, by measured sensitivities; those that are not in it get what all get."""
        by_name = {str(layer.source.name): layer.source for layer in linear}
        if (kept := saved.load("goals")) is not None:
            return {by_name[name]: (Pattern.parse(text), s) for name, (text, s) in kept[1].items()}
        even = (self.pattern, self.target)
        able = [x for x in linear if not (self._obstacle(x) or self._pointless(x.matrix(), *even))]
        found = sensitivity.measure(model, able, feeds, sensitivity.tried(even), memory=memory)
        goals = sensitivity.plan(found, even, self.drift or math.inf)
        saved.save("goals", {}, {str(source.name): (str(pattern), s) for source, (pattern, s) in goals.items()})
        return goals

    def _prune_or_resume(
        self, group: Sequence[Linear], wanted: Mapping[ir.Value, Linear], work: _Work, saved: Saved, step: str
    ) -> None:
        """Prune the `wanted` weights of `group`, or make them what another run had made of them."""
        if (kept := saved.load(step)) is not None:
            arrays, outcomes = kept
            if work.learner is not None:
                work.learner.skip(group, [*wanted.values()])
            for source, layer in wanted.items():
                _store(layer, arrays[f"{source.name} weight"])
                if (bias := bias_of(layer)) is not None:
                    bias.const_value = ir.tensor(arrays[f"{source.name} bias"], name=bias.name)
                outcome = outcomes[str(source.name)]
                work.done[source] = outcome if isinstance(outcome, str) else (outcome[0], outcome[1])
            return
        self._prune_group(group, wanted, work)
        changed: dict[str, Any] = {}
        for source, layer in wanted.items():
            now = find_linear(layer.node)
            assert isinstance(now, Linear)
            changed[f"{source.name} weight"] = now.matrix()
            if (bias := bias_of(layer)) is not None:
                assert bias.const_value is not None  # see `bias_of`
                changed[f"{source.name} bias"] = bias.const_value.numpy()
        saved.save(step, changed, {str(source.name): work.done[source] for source in wanted})

    def _wanted(self, group: Sequence[Linear], work: _Work) -> dict[ir.Value, Linear]:
        """The weights of `group` to prune, but for those of groups before; why others stay is put into `work.done`."""
        wanted: dict[ir.Value, Linear] = {}
        for layer in group:
            if layer.source not in work.planned:
                work.planned.add(layer.source)
                if reason := self._obstacle(layer) or self._pointless(layer.matrix(), *self._goal(layer.source, work)):
                    work.done[layer.source] = reason
                else:
                    wanted[layer.source] = layer
        return wanted

    def _prune_group(self, group: Sequence[Linear], wanted: Mapping[ir.Value, Linear], work: _Work) -> None:
        """Prune the `wanted` weights of `group`."""
        statistics = {} if work.learner is None else work.learner.statistics(group, [*wanted.values()])
        factors: dict[tuple[int, bool], Factors] = {}
        for source, layer in wanted.items():
            work.done[source] = self._prune(layer, self._goal(source, work), statistics.get(source), factors)

    def _goal(self, source: ir.Value, work: _Work) -> Goal:
        return work.goals.get(source, (self.pattern, self.target))

    def _pointless(self, weight: FloatArray, pattern: Pattern, sparsity: float) -> str:
        """Why there is nothing to do for W [K, N]; empty if there is."""
        before = 1 - np.count_nonzero(weight) / weight.size
        if not np.isfinite(weight).all():
            return "the weight holds a NaN or an infinity"
        if before >= sparsity:
            return f"the weight is already {before:.0%} sparse, the target is {sparsity:.0%}"
        parts = (weight[:, part] for part in admm.columns(weight.shape[1], pattern))
        if all((magnitude.prune(part, pattern, sparsity)[0] | (part == 0)).all() for part in parts):
            return f"the weight already satisfies {pattern}"
        return ""

    def _prune(
        self,
        layer: Linear,
        goal: Goal,
        statistics: Statistics | None,
        factors: dict[tuple[int, bool], Factors],
    ) -> _Outcome | str:
        """Prune the weight of `layer` to `goal`; `factors` are those of the statistics seen so far."""
        if statistics is None and self.method not in ("auto", "magnitude"):
            return f"`{self.method}` needs data that reaches the layer, and none did"
        if statistics is None and self.method == "auto" and window_of(layer.node) is not None:
            # Those of compact networks do not survive it: a text detector came to a cosine of .09.
            return "convolutions are not pruned by magnitude, and no data reached it"
        weight = layer.matrix()
        facts = {"sparsity_before": 1 - np.count_nonzero(weight) / weight.size, "pattern": str(goal[0])}
        if statistics is None:
            _, pruned = magnitude.prune(weight, *goal)
            facts["energy_kept"] = kept = _energy(pruned) / _energy(weight)
            method, what = "magnitude", f"{kept:.1%} of the energy kept"
        else:
            method = "admm" if self.method == "auto" else self.method
            solve = self._solve_jointly if method == "admm" else self._solve_alone
            pruned, found = solve(layer, weight, goal, statistics, factors)
            facts |= found
            what = f"{found['output_error']:.1%} of the outputs' energy lost"
        _store(layer, pruned)
        facts["sparsity"] = after = 1 - np.count_nonzero(pruned) / pruned.size
        return f"pruned to {goal[0]} by {method}, {after:.0%} sparse, {what}", facts | {"method": method}

    def _solve_jointly(
        self,
        layer: Linear,
        weight: FloatArray,
        goal: Goal,
        statistics: Statistics,
        factors: dict[tuple[int, bool], Factors],
    ) -> tuple[FloatArray, dict[str, float]]:
        """W' [K, N] by ADMM, or where that is better by `obs`, and errors under H; the layer's bias is shifted."""
        bias = bias_of(layer) if len([*readers(layer.source)]) == 1 else None
        key = (id(statistics), bias is not None)
        moment = statistics.second_moment(centred=bias is not None)
        if key not in factors:
            factors[key] = Factors(moment)
        # The target needs a factorisation of its own, which runs beside those that the search will ask for.
        aim = partial(statistics.target, weight, self.correction, centred=bias is not None)
        ready = partial(factors[key].prepare, [rho for rho, _ in admm.SCHEDULE], upper=self.method == "auto")
        with ThreadPoolExecutor(1) as beside:
            if parallel.here():  # other machines factorise for themselves
                beside.submit(ready)
            wanted = aim()
        if self.method == "auto":
            found = best.prune(wanted, factors[key], *goal, levels=self.levels)
            pruned, facts = found.weight, {"output_error": found.error, "obs_error": found.surgeon_error}
        else:
            _, pruned = admm.prune(wanted, factors[key], *goal, levels=self.levels)
            facts = {"output_error": relative_error(wanted, pruned, moment)}
        if bias is not None:
            shift_bias(bias, statistics.bias_shift(weight, pruned, self.correction))
        return pruned, facts

    def _solve_alone(
        self, layer: Linear, weight: FloatArray, goal: Goal, statistics: Statistics, factors: object
    ) -> tuple[FloatArray, dict[str, float]]:
        """W' [K, N] as `obs` and `wanda` are published: for the inputs that come, with no eye to what should come."""
        if self.method == "obs":
            solve = partial(obs.prune, moment=Factors(statistics.moment))  # one factorisation for all columns
        else:
            solve = partial(wanda.prune, moment=statistics.moment)
        pruned = np.empty_like(weight)
        for part in admm.columns(weight.shape[1], goal[0]):
            _, pruned[:, part] = solve(weight[:, part], pattern=goal[0], sparsity=goal[1])
        return pruned, {"output_error": relative_error(weight, pruned, statistics.moment)}

    def _obstacle(self, layer: Linear) -> str:
        """Why the weight of `layer` must not be changed; empty if it may."""
        if (choice := chosen(layer)) is not None and choice.pattern is None:
            return f"the search chose `{choice}`"
        if layer.tensor.size < self.min_size:
            return f"the weight has {layer.tensor.size} weights, fewer than {self.min_size}"
        if layer.source.is_graph_output():
            return "the weight is an output of the model"
        for node, index in readers(layer.source):
            other = find_linear(node)
            if not isinstance(other, Linear) or index != 1:
                return f"the weight is also read by {node.op_type} `{node_name(node)}`"
            if self.pattern.oriented and other.transposed != layer.transposed:
                return f"the weight is used in both orientations, also by `{other.name}`"
        return ""


def _energy(weight: FloatArray) -> float:
    """Sum of squares, in float64; row by row, as a whole matrix of them may be too much."""
    return sum(float(np.square(row, dtype=np.float64).sum()) for row in weight)


def _store(layer: Linear, weight: FloatArray) -> None:
    """Put W [K, N] where the weight of `layer` is stored, in the orientation and type in which it is stored."""
    tensor = storage.tensor(stored(layer, weight), str(layer.tensor.name), layer.node.graph)
    layer.source.const_value = tensor  # of a Constant node it is a copy that other passes may look at
    if (node := layer.source.producer()) is not None:
        node.attributes["value"] = ir.AttrTensor("value", tensor)
