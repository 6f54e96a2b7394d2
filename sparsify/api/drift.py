"""The audit as a program and as the command line call it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from sparsify import budgetfile, modelio
from sparsify.api import baselines, facts, intake
from sparsify.api.samples import DataSource, Invented, read_or_invent, told_of
from sparsify.audit import DriftReport, usermetrics
from sparsify.audit import audit as compare
from sparsify.audit import labels as labels_
from sparsify.audit.attribution import MEMORY, THRESHOLD
from sparsify.audit.changes import changes
from sparsify.budget import Budget
from sparsify.budget import parse as parse_budget
from sparsify.data import Reading, digest
from sparsify.modelio import Source
from sparsify.pipeline.run import Progress

THREADS = 1  # more may add in another order, and a verdict must not depend on that
_THREADS = "run on {} threads: the last digits may differ from those of one thread, which is the default"

SYNTHETIC = "there was no data: the inputs were made up, and drift on those proves little; judge with --data"


def audit(
    base: Source,
    candidate: Source,
    data: DataSource | None = None,
    budget: str | Sequence[str] = (),
    *,
    kinds: Mapping[str, str] | None = None,
    labels: str | Path | npt.ArrayLike | None = None,
    metrics: Sequence[str | usermetrics.Function] = (),
    layers: bool = False,
    memory: int = MEMORY,
    threshold: float = THRESHOLD,
    seed: int = 0,
    threads: int = THREADS,
    reading: Reading | None = None,
    baseline: str | Path | None = None,
    save_worst: str | Path | None = None,
    progress: Progress | None = None,
) -> DriftReport:
    """How far `candidate` has drifted from `base` on all of `data`; true when inside every budget.

    Args:
        base: the model that is right.
        candidate: the model to judge.
        data: as in `optimize`; made-up numbers if not given, and a note that they prove little.
        budget: what the drift must keep to, such as "cosine>=0.99", or a `.toml` file of budgets.
        kinds: what outputs are, by name, such as {"y": "logits"}, where it cannot be seen (`sparsify.audit.kinds`).
        labels: what is right, one a sample: an array, `FILE` or `OUTPUT=FILE` (`sparsify.audit.labels`).
        metrics: of your own: functions of (base's outputs, candidate's outputs, inputs) of one sample that return a
            number, or `MODULE:FUNCTION` (`sparsify.audit.usermetrics`). Budgets call them by the function's name.
        layers: also measure each layer.
        memory: bytes that intermediate values of layers may take at a time; weights come on top.
        threshold: of accumulated drift (relative L2), to name the first layer over it.
        seed: of the bootstrap.
        threads: onnxruntime's. With one, two runs give the same figures; with more, last digits may depend on it.
        reading: as in `optimize`.
        baseline: the JSON report of an accepted candidate on the same base and data, to be no worse than.
        save_worst: a folder to write the worst samples into: inputs, outputs and drift.
        progress: called with (steps done, steps in all, what is under way).

    Raises:
        UsageError: a budget that makes no sense.
        InputError: models, data or a baseline that cannot be used, or that do not belong together.
    """
    measures = [usermetrics.load(given) for given in metrics]  # budgets may be about them
    wanted = budgets(budget)
    right_answers = None
    if labels is not None:
        right_answers = labels_.read(labels) if isinstance(labels, (str, Path)) else labels_.of(labels)
    accepted = None if baseline is None else baselines.read(baseline)
    right = intake.load(base)
    samples = read_or_invent(data, right, reading, seed)
    if accepted is not None:
        accepted.check(lambda: modelio.digest(facts.named(base, right)), lambda: digest(samples))
    other = intake.load(candidate)
    with told_of(samples):
        found = compare(
            right,
            other,
            samples,
            budgets=wanted,
            kinds=kinds,
            labels=right_answers,
            measures=measures,
            layers=layers,
            memory=memory,
            threshold=threshold,
            seed=seed,
            threads=threads,
            save_worst=None if save_worst is None else Path(save_worst),
            sides=(_name(base, "base"), _name(candidate, "candidate")),
            progress=None if progress is None else lambda what, done, total: progress(done, total, f"audit {what}"),
        )
    more = [SYNTHETIC] if isinstance(samples, Invented) else []
    more += [_THREADS.format(threads)] if threads != THREADS else []
    found = replace(found, notes=(*more, *found.notes))
    return found if accepted is None else accepted.judge(found)


def report_of(
    base: str | Path,
    candidate: str | Path,
    data: DataSource | None = None,
    budget: str | Sequence[str] = (),
    *,
    reading: Reading | None = None,
    **options: Any,
) -> dict[str, Any]:
    """What `sparsify audit` reports; arguments as of `audit`. Nothing in it depends on the time."""
    right = intake.load(base)
    samples = read_or_invent(data, right, reading, options.get("seed", 0))
    found = audit(base, candidate, samples, budget, **options)
    drift = facts.drift(found)
    folder = options.get("save_worst")
    worst = None if folder is None else {"folder": str(folder), "samples": [one.to_dict() for one in found.saved]}
    places = {name: facts.model(source) for name, source in (("base", base), ("candidate", candidate))}
    differ = changes(right, intake.load(candidate), places["base"]["sha256"])
    return {
        "schema": facts.SCHEMA,
        "kind": "audit",
        "title": "Sparsify: audit",
        "summary": f"{SYNTHETIC}. {facts.verdict(drift)}" if isinstance(samples, Invented) else facts.verdict(drift),
        "accepted": bool(found),
        **facts.place(),
        **places,
        "data": facts.data(samples, data, synthetic=isinstance(samples, Invented)),
        "changes": facts.finite(differ.to_dict()),
        "drift": drift,
        "saved": worst,
        "layers": [row.to_dict() for row in found.layers],
        "attribution": found.attribution.to_dict() if found.attribution else None,
    }


def _name(model: Source, side: str) -> str:
    return str(model) if isinstance(model, (str, Path)) else f"the {side}"


def budgets(texts: str | Sequence[str]) -> tuple[Budget, ...]:
    """Budgets from a text or a list of texts: each an expression, or the name of a `.toml` file."""
    found: list[Budget] = []
    for text in [texts] if isinstance(texts, str) else texts:
        found += budgetfile.read(text) if budgetfile.is_file(text) else (parse_budget(text),)
    return tuple(found)
