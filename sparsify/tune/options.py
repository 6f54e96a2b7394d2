"""What each layer of a model may become: what that costs, and how far the model drifts by it. All of it is measured.

1. Every form of every layer is timed (`candidates`), taken from a file of costs, or weighed where size is the goal.
2. How far the whole model drifts when one layer alone is pruned is measured (`sparsify.sensitivity`), and when it alone
   runs in low precision (`rounding`). A layer that does both is taken to drift by the sum.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from sparsify import graph, sensitivity
from sparsify.audit import DriftReport, UserMetric, audit
from sparsify.data import Feed
from sparsify.errors import InputError
from sparsify.graph import Linear
from sparsify.machine import learning_memory
from sparsify.parallel import one_blas_thread
from sparsify.patterns import Pattern
from sparsify.pipeline import Pipeline, parse
from sparsify.pipeline.run import Progress, observe_rows, silence
from sparsify.resume import Saved
from sparsify.rewrite import Choice
from sparsify.solvers.allocate import Curve
from sparsify.tune import candidates, rounding
from sparsify.tune.candidates import Costs, Kind
from sparsify.tune.knapsack import Option
from sparsify.tune.plan import EXACT, LOWER, PREPARE, SMOOTH, STOCK, Plan, build, pipeline

GOALS = ("latency", "size")
_ROUNDED_FEEDS = 2  # that low precision is tried on: its drift varies less with the data than that of pruning
_MARGIN = 1.05  # times cheaper than the layer as it is, or not worth a drift; measurements repeat to a few per cent


@dataclass(frozen=True)
class Settings:
    """How a search goes about it.

    Attributes:
        target: `portable` or `stock`.
        threads: that the model will run on.
        rows: that layers will see; those in the data if None.
        memory: MiB to keep while learning from data; a quarter of the machine's if None.
        effort: 0 to 3: how many sparsities and how many plans are tried.
        seed: of the audits' bootstrap.
        goal: `latency` or `size`: what is to be little.
        costs: measured times, of whatever machine; they are measured here if None.
        progress: told what is under way.
        measures: metrics that somebody brings, which budgets may be about.
    """

    target: str = "portable"
    threads: int = 1
    rows: int | None = None
    memory: int | None = None
    effort: int = 1
    seed: int = 0
    goal: str = "latency"
    costs: Mapping[Kind, Costs] | None = None
    progress: Progress = silence
    measures: tuple[UserMetric, ...] = ()

    @property
    def pipeline(self) -> Pipeline:
        """All passes that a plan may need."""
        return pipeline(self.target, self.memory, rows=self.rows, threads=self.threads)


@dataclass(frozen=True)
class Problem:
    """What there is to choose.

    Attributes:
        names: of the layers.
        options: of each layer, the first of which leaves it.
        left: what each layer costs as it is, milliseconds or bytes.
    """

    names: tuple[str, ...] = ()
    options: tuple[tuple[Option, ...], ...] = ()
    left: tuple[float, ...] = field(default=())

    @property
    def by_name(self) -> dict[str, tuple[Option, ...]]:
        """Options by layer."""
        return dict(zip(self.names, self.options, strict=True))

    def fastest_unpruned(self) -> list[Option]:
        """The cheapest option of each layer that prunes nothing."""
        unpruned = ([o for o in of_layer if o.choice.pattern is None] for of_layer in self.options)
        return [min(of_layer, key=lambda o: o.cost) for of_layer in unpruned]

    def plan(self, taken: Sequence[Option]) -> Plan:
        """The choices of one option for each layer."""
        return {name: option.choice for name, option in zip(self.names, taken, strict=True)}

    def saved(self, taken: Sequence[Option]) -> float:
        """Milliseconds or bytes that these options cost less than the layers as they are."""
        return sum(of_layer[0].cost - o.cost for of_layer, o in zip(self.options, taken, strict=True))


def problem(model: ir.Model, learn: Sequence[Feed], settings: Settings) -> Problem:
    """Measure what the linear layers of the main graph of `model` may become, with feeds to learn from.

    Raises:
        InputError: a file of costs lacks a class of layers.
    """
    prepared, layers, kinds = classes(model, learn[0], settings)
    if not layers:
        return Problem()
    costs = _costs(layers, kinds, settings)
    worth = [{c: x for c, x in costs[k].by_choice.items() if x * _MARGIN <= costs[k].left} for k in kinds]
    prunes = any(choice.pattern is not None for of_kind in worth for choice in of_kind)
    curves = _curves(prepared, layers, learn, settings) if prunes else {}
    names = [layer.name for layer in layers]
    formats = [dict.fromkeys(c.format for c in of_kind if c.format != EXACT) for of_kind in worth]
    rounded = _rounding(prepared, formats, learn, settings) if any(formats) else {}
    options = []
    for layer, kind, of_kind in zip(layers, kinds, worth, strict=True):
        of_layer = [Option(Choice(), costs[kind].left, 0.0)]
        curve = curves.get(layer.name)
        for choice, cost in of_kind.items():
            if choice.pattern is not None and curve is None:
                continue
            pruning = 0.0 if choice.pattern is None or curve is None else curve.at(choice.pattern.sparsity or 0.0)
            of_layer.append(Option(choice, cost, pruning + rounded.get((layer.name, choice.format), 0.0)))
        options.append(tuple(of_layer))
    return Problem(tuple(names), tuple(options), tuple(costs[kind].left for kind in kinds))


def classes(
    model: ir.Model, sample: Feed | None, settings: Settings
) -> tuple[ir.Model, list[Linear], list[candidates.Kind]]:
    """`model` as the passes before any choice leave it, its layers, and the class of each."""
    prepared = model.clone()
    Pipeline(parse(PREPARE)).run(prepared, sample=sample, progress=settings.progress)
    if sample is not None:
        observe_rows(prepared, sample)
    layers = _layers(prepared)
    return prepared, layers, candidates.kinds(prepared, layers, settings.rows)


def _layers(prepared: ir.Model) -> list[Linear]:
    return [x for x in graph.linear_layers(prepared) if x.node.graph is prepared.graph]


def _costs(layers: Sequence[Linear], kinds: Sequence[Kind], settings: Settings) -> Mapping[Kind, Costs]:
    tried = candidates.choices(settings.target, settings.effort)
    if settings.goal == "size":
        return candidates.weigh(layers, kinds, tried)
    if settings.costs is None:
        return candidates.measure(layers, kinds, tried, threads=settings.threads, progress=settings.progress)
    for kind in kinds:
        if kind not in settings.costs:
            raise InputError(
                f"no costs of a layer of {kind.shape[0]}x{kind.shape[1]}, {kind.rows} rows, {_text(kind)}",
                where="--costs",
                hint="`sparsify doctor --profile FILE --model MODEL`, with the same --data or --rows, measures them",
            )
    formats = STOCK if settings.target == "stock" else LOWER
    patterns = {None, *candidates.patterns(settings.effort)}
    return {kind: _allowed(settings.costs[kind], formats, patterns) for kind in kinds}


def _allowed(costs: Costs, formats: Collection[str], patterns: Collection[Pattern | None]) -> Costs:
    allowed = {c: cost for c, cost in costs.by_choice.items() if c.format in formats and c.pattern in patterns}
    return Costs(costs.left, allowed)


def _text(kind: Kind) -> str:
    after = kind.activation.value or "no activation"
    return f"{'a' if kind.biased else 'no'} bias, {after}, {kind.density:.0%} non-zeros"


def _curves(
    prepared: ir.Model, layers: Sequence[Linear], learn: Sequence[Feed], settings: Settings
) -> dict[str, Curve]:
    """Drift over sparsity, by layer; layers whose weights must not be changed are not in it."""
    goals = [(p, p.sparsity or 0.0) for p in candidates.probed(settings.effort)]
    saved = Saved.of(("sensitivity", goals), prepared, learn)
    with one_blas_thread():
        measured = sensitivity.measure(
            prepared,
            layers,
            learn,
            goals,
            memory=learning_memory(settings.memory),
            threads=1,  # several weights are tried at once
            saved=saved,
            progress=settings.progress,
        )
    saved.clear()
    # Layers that share a weight share its drift.
    return {name: one.curve for one in measured for name in one.names}


def _rounding(
    prepared: ir.Model, formats: Sequence[Collection[str]], learn: Sequence[Feed], settings: Settings
) -> dict[tuple[str, str], float]:
    """Drift by layer and format, of one layer alone; where it cannot be seen, an even share of that of all together.

    Inputs are smoothed, as they will be where a layer is not pruned; where it is, pruning is what drifts.
    """
    prepared = prepared.clone()
    Pipeline(parse(SMOOTH)).run(prepared, calibration=learn)
    wanted = dict(zip(_layers(prepared), formats, strict=True))
    feeds = learn[:_ROUNDED_FEEDS]
    seen = {x: formats for x, formats in wanted.items() if formats and rounding.measurable(x, prepared.graph)}
    saved = Saved.of("rounding", prepared, feeds)
    memory = learning_memory(settings.memory)
    with one_blas_thread():
        found = rounding.measure(prepared, seen, feeds, memory=memory, threads=settings.threads, saved=saved)
    saved.clear()
    hidden = {layer: formats for layer, formats in wanted.items() if layer not in seen}
    for format_ in dict.fromkeys(f for formats in hidden.values() for f in formats):
        share = _together(prepared, [x.name for x in wanted], format_, feeds, settings) / len(wanted)
        found |= {(layer.name, format_): share for layer in hidden}
    return found


def _together(
    prepared: ir.Model, names: Sequence[str], format_: str, feeds: Sequence[Feed], settings: Settings
) -> float:
    """Drift with all layers in that format."""
    rounded = prepared.clone()
    build(rounded, pipeline("portable"), dict.fromkeys(names, Choice(format_)), [])
    return _energy(audit(prepared, rounded, feeds, threads=settings.threads))


def _energy(found: DriftReport) -> float:
    """||y' - y||^2 / ||y||^2, the mean over the float outputs."""
    shares = [o.metrics["relative_l2"].value ** 2 for o in found.outputs.values() if "relative_l2" in o.metrics]
    return sum(shares) / len(shares) if shares else 0.0
