"""sparsify optimize"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsify.cli import options, talk
from sparsify.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from sparsify import api


def run(
    model: options.Model,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="OUT", help="Where to write; <stem>.sparse.onnx beside the input if not given."
        ),
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(
            "-O",
            metavar="LEVEL",
            min=0,
            max=3,
            show_default=False,
            help="0 to 3; if not given 2, 3 with data, a search with a budget.",
        ),
    ] = None,
    passes: Annotated[
        str | None,
        typer.Option(
            "--passes", metavar="PIPELINE", show_default=False, help='Instead of a level: "name{option=value},name".'
        ),
    ] = None,
    data: options.Data = None,
    tokenizer: options.Tokenizer = None,
    preprocess: options.Preprocess = None,
    trust_data: options.TrustData = False,
    budget: options.Budgets = None,
    metric: options.Metrics = None,
    target: Annotated[
        str, typer.Option("--target", help="portable, or stock: onnxruntime's own operators.")
    ] = "portable",
    threads: options.Threads = None,
    rows: options.Rows = None,
    memory: options.Memory = None,
    parallel: options.Parallel = None,
    reports: options.Reports = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    effort: options.Effort = 1,
    goal: Annotated[str, typer.Option("--goal", help="Of a search: latency or size.")] = "latency",
    costs: Annotated[
        Path | None,
        typer.Option(
            "--costs",
            metavar="FILE",
            show_default=False,
            help="Of a search: times that `doctor --profile` measured where the model will run.",
        ),
    ] = None,
    frontier: Annotated[
        Path | None,
        typer.Option(
            "--frontier",
            metavar="FILE",
            show_default=False,
            help="Write the whole curve of cost over drift instead of a model: .svg .json .md .html",
        ),
    ] = None,
    best_effort: Annotated[
        bool,
        typer.Option("--best-effort", help="Write the closest model to a budget that is not met; exit 1 all the same."),
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 when nothing could be gained.")] = False,
    dump_after: Annotated[
        tuple[str, Path] | None,
        typer.Option(
            "--dump-after", metavar="PASS DIR", show_default=False, help="Write the model as it is after PASS."
        ),
    ] = None,
) -> int:
    """Make a model faster, and say what that did to its answers."""
    from sparsify import api

    if frontier is not None:
        _refuse_with_frontier({"-o": out, "-O": level, "--passes": passes, "--dump-after": dump_after})
        return _write_frontier(
            [frontier, *(reports or ())],
            model,
            data,
            budget or (),
            quiet=quiet,
            metrics=metric or (),
            goal=goal,
            target=target,
            threads=threads,
            rows=rows,
            memory=memory,
            parallel=parallel,
            seed=seed,
            effort=effort,
            costs=costs,
        )
    talk.check(reports)
    place = out or _default_out(model)
    _check_place(Path(model), place)
    with talk.progress(quiet=quiet) as listener:
        result = api.optimize(
            model,
            data,
            budget or (),
            level,
            metrics=metric or (),
            passes=passes,
            target=target,
            threads=threads,
            rows=rows,
            memory=memory,
            parallel=parallel,
            seed=seed,
            effort=effort,
            best_effort=best_effort,
            goal=goal,
            costs=costs,
            reading=options.reading(tokenizer, preprocess, trust_data),
            dump_after=dump_after,
            progress=listener,
        )
        refused = not result.accepted or (strict and not result.changed)
        written = not refused or (best_effort and result.changed)
        if written:
            listener(0, 1, "write the model")
            result.save(place)
            result.report["candidate"]["path"] = str(place)
    talk.deliver(result.report, reports)
    if refused:
        found = f"wrote {place}" if written else "nothing was written"
        talk.complain(f"error: {result.reason} ({model})\n\nhint: {found}; {_way_out(result)}")
        return int(ExitStatus.REFUSED)
    talk.say(f"wrote {place}", quiet=quiet)
    return int(ExitStatus.OK)


def _refuse_with_frontier(given: dict[str, object]) -> None:
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"a frontier has no use for {name}", where="--frontier", hint=f"leave {name} out")


def _write_frontier(
    files: list[Path], model: str, data: str | None, budget: Sequence[str], *, quiet: bool, **settings: Any
) -> int:
    from sparsify import api, report

    report.check(files[0], option="--frontier")
    talk.check(files[1:])
    if data is None:
        raise UsageError("drift can only be measured on data", where="--frontier", hint="give samples with --data")
    with talk.progress(quiet=quiet) as listener:
        found = api.curve(model, data, budget, progress=listener, **settings)
    talk.deliver(found, files)
    return int(ExitStatus.OK)


def _default_out(model: str) -> Path:
    path = Path(model)
    return path.with_name(f"{path.stem}.sparse.onnx")


def _check_place(model: Path, place: Path) -> None:
    """Say before the work, not after it, that the result could not be written."""
    from sparsify.files import check_folder

    if place.exists() and model.exists() and place.samefile(model):
        raise UsageError("this would overwrite the input", where=f"-o {place}", hint="choose another name")
    if place.is_dir():
        raise UsageError("this is a folder", where=f"-o {place}", hint="name a file in it")
    check_folder(place, f"-o {place}")


def _way_out(result: api.Result) -> str:
    if not result.accepted:
        lower = "" if result.report["search"] else "; a lower -O level drifts less"
        return f"widen the budget{lower}; --best-effort writes what comes closest"
    return "without --strict the input comes back as it is"
