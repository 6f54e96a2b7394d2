"""Running a pipeline: each pass timed, its effect measured, the model verified after it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import onnx_ir as ir

from sparsify import graph, modelio, ops, runtime
from sparsify.errors import SparsifyError, UsageError
from sparsify.pipeline import takeback
from sparsify.pipeline.text import to_text
from sparsify.pipeline.verify import BrokenModelError, Feed, PassError, Verifier
from sparsify.pruning import FEEDS
from sparsify.rewrite import LISTENER, Change, Finding, Pass, Refusal, Report

Progress = Callable[[int, int, str], None]  # steps done, steps in all, what is under way


@dataclass(frozen=True)
class Step:
    """What one pass did.

    Attributes:
        text: the pass with its options.
        seconds: in the pass itself; `verify_seconds` in looking whether the model still works.
        nodes, bytes: of the model, before and after.
    """

    name: str
    text: str
    seconds: float
    verify_seconds: float
    changes: tuple[Change, ...]
    refusals: tuple[Refusal, ...]
    findings: tuple[Finding, ...]
    nodes: tuple[int, int]
    bytes: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """As JSON carries it; what happened to each node stands elsewhere."""
        return {
            "pass": self.text,
            "seconds": self.seconds,
            "verify_seconds": self.verify_seconds,
            "changes": len(self.changes),
            "refusals": len(self.refusals),
            "nodes": list(self.nodes),
            "bytes": list(self.bytes),
        }


@dataclass(frozen=True)
class PipelineReport:
    """What all passes did, in order.

    Attributes:
        restored: layers whose pruning was taken back because no later pass had use for it, and their sparsity.
    """

    pipeline: str
    steps: tuple[Step, ...]
    restored: dict[str, float] = field(default_factory=dict)

    @property
    def modified(self) -> bool:
        return any(step.changes for step in self.steps)


@dataclass(frozen=True)
class Pipeline:
    """Passes to run one after another."""

    passes: tuple[Pass, ...]

    def __str__(self) -> str:
        return to_text(self.passes)

    def run(
        self,
        model: ir.Model,
        *,
        sample: Feed | None = None,
        answers: Feed | None = None,
        calibration: Sequence[Feed] = (),
        observe: bool = True,
        dump_after: tuple[str, Path] | None = None,
        progress: Progress | None = None,
    ) -> PipelineReport:
        """Change `model` in place.

        Args:
            model: the model.
            sample: one feed; with it the model is run after each change, a large one once at the end.
            answers: what `model` gives for `sample`, where that is known already.
            calibration: feeds from which passes that ask for it learn what layers see.
            observe: whether `sample` has real shapes, so that the rows which each linear layer sees in it count.
            dump_after: (pass name, folder): the model as it is after that pass is written as NN-pass.onnx.
            progress: told before each pass, and at the end.

        Raises:
            InputError: the model cannot be run on `sample` as it came.
            UsageError: `dump_after` names a pass that is not in the pipeline, or a folder that cannot be made.
            PassError: a pass failed or broke the model.
        """
        if dump_after and dump_after[0] not in {p.name for p in self.passes}:
            names = ", ".join(p.name for p in self.passes)
            raise UsageError(
                f"pass `{dump_after[0]}` is not in the pipeline", where="--dump-after", hint=f"it runs {names}"
            )
        if dump_after:
            _make_folder(dump_after[1])
        report = progress or silence
        report(0, len(self.passes), "verify the input")
        verifier = Verifier(model, sample, answers)
        steps: list[Step] = []
        keeper: takeback.Keeper | None = None
        restored: dict[str, float] = {}
        for number, one in enumerate(self.passes):
            report(number, len(self.passes), one.name)
            model.meta[LISTENER] = _teller(report, number, len(self.passes), one.name)
            if observe and sample is not None and _wants_rows(one):
                observe_rows(model, sample)
            if calibration and getattr(one, "wants_data", False):
                model.meta[FEEDS] = calibration  # in memory only, never saved
            if keeper is None and takeback.wanted(self.passes, number):
                keeper = takeback.Keeper(model)
            size = steps[-1].bytes[1] if steps else modelio.size(model)
            steps.append(_step(one, model, verifier, size, road=self.passes[:number]))
            if keeper is not None and not takeback.awaited(self.passes, number):
                restored, keeper = keeper.restore(model), None
            model.meta.pop(FEEDS, None)
            model.meta.pop(LISTENER, None)
            if dump_after and one.name == dump_after[0]:
                modelio.save(model, dump_after[1] / f"{number:02}-{one.name}.onnx")
        if restored or verifier.is_unrun:
            report(len(self.passes), len(self.passes), "verify the result")
            _finish(model, verifier, steps, changed=bool(restored))
        report(len(self.passes), len(self.passes), "done")
        return PipelineReport(str(self), tuple(steps), restored)


def observe_rows(model: ir.Model, sample: Feed) -> None:
    """Put into `meta["rows"]` of each linear layer of the main graph how many rows it sees in `sample`."""
    unknown = [x for x in graph.linear_layers(model) if "rows" not in x.node.meta and x.node.graph is model.graph]
    if not unknown:
        return
    named = [layer for layer in unknown if layer.x.name]
    shapes = runtime.observe_rows(model, dict(sample), _names(layer.x for layer in named))
    for layer in named:
        if (shape := shapes.get(str(layer.x.name))) is not None:
            # All dimensions but the one that is multiplied, wherever a transposition has put it.
            layer.node.meta["rows"] = _product(shape) // max(layer.shape[0], 1)


def _teller(report: Progress, number: int, total: int, name: str) -> Callable[[int], None]:
    """Says how far a pass is: on a large model one alone takes minutes."""
    return lambda nodes: report(number, total, f"{name}, {nodes} node{'s' if nodes > 1 else ''}")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "a file has this name" if folder.exists() else str(error.strerror)
        raise UsageError(
            f"cannot make the folder: {why}", where=f"--dump-after {folder}", hint="name another"
        ) from error


def _step(one: Pass, model: ir.Model, verifier: Verifier, size: int, road: tuple[Pass, ...]) -> Step:
    nodes = _count(model)
    start = time.perf_counter()
    try:
        done = cast(Report, one(model))
    except (SparsifyError, OSError):  # no disk is a pass's fault
        raise
    except Exception as error:
        raise _blame(one, road, f"failed with {type(error).__name__}: {error}") from error
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    if done.modified:
        try:
            verifier.verify(model)
        except BrokenModelError as error:
            raise _blame(one, road, f"broke the model: {error}") from error
    return Step(
        name=one.name,
        text=str(one),
        seconds=seconds,
        verify_seconds=time.perf_counter() - start,
        changes=done.changes,
        refusals=done.refusals,
        findings=done.findings,
        nodes=(nodes, _count(model)),
        bytes=(size, modelio.size(model) if done.modified else size),
    )


def _finish(model: ir.Model, verifier: Verifier, steps: list[Step], *, changed: bool) -> None:
    """Verify what was left unverified, or was `changed` after the last pass; the time is that pass's."""
    start = time.perf_counter()
    try:
        if changed:
            verifier.verify(model)
        verifier.finish(model)
    except BrokenModelError as error:
        raise PassError(
            f"the model that the passes made is broken: {error}",
            where=",".join(step.text for step in steps),
            hint="this is a bug of ours: please report it; `--dump-after PASS DIR` writes the model after each pass",
        ) from error
    took = steps[-1].verify_seconds + time.perf_counter() - start
    steps[-1] = dataclasses.replace(steps[-1], verify_seconds=took)


def _blame(one: Pass, road: tuple[Pass, ...], what: str) -> PassError:
    after = f", after {to_text(road)}" if road else ""
    before = road[-1].name if road else "cleanup"
    return PassError(
        f"pass `{one.name}` {what}",
        where=f"{one}{after}",
        hint=f"this is a bug of ours: please report it with the model that `--dump-after {before} DIR` writes",
    )


def _wants_rows(one: Pass) -> bool:
    return any(f.name == "rows" for f in dataclasses.fields(one))


def _count(model: ir.Model) -> int:
    return sum(1 for _ in ops.model_nodes(model))


def _names(values: Iterable[ir.Value]) -> list[str]:
    return list(dict.fromkeys(str(v.name) for v in values))


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for dim in shape:
        total *= dim
    return total


def silence(done: int, total: int, what: str) -> None:
    """Tell nobody."""
