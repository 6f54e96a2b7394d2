"""sparsify audit"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from sparsify.cli import options, talk
from sparsify.errors import ExitStatus, UsageError


def run(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The model that is right.", show_default=False)],
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="The model to judge.", show_default=False)],
    data: options.Data = None,
    tokenizer: options.Tokenizer = None,
    preprocess: options.Preprocess = None,
    trust_data: options.TrustData = False,
    budget: options.Budgets = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline",
            metavar="FILE",
            show_default=False,
            help="A .json report of an accepted candidate, on the same base and data: be no worse, beyond noise.",
        ),
    ] = None,
    reports: options.Reports = None,
    junit: Annotated[
        Path | None,
        typer.Option("--junit", metavar="FILE", show_default=False, help="Write JUnit's XML, whatever FILE's name."),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="OUTPUT=KIND",
            show_default=False,
            help="What an output is: logits, probabilities, scores, token_logits, embeddings, maps, boxes or other.",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            show_default=False,
            help="What is right, one a sample: .npy .npz .csv or .txt; OUTPUT=FILE where one output alone is meant.",
        ),
    ] = None,
    metric: options.Metrics = None,
    save_worst: Annotated[
        Path | None,
        typer.Option(
            "--save-worst",
            metavar="FOLDER",
            show_default=False,
            help="Write the worst samples: their inputs, usable as --data, both models' outputs and their drift.",
        ),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Say which layer the drift comes from.")] = False,
    memory: Annotated[
        int | None,
        typer.Option("--memory", metavar="MIB", min=1, show_default=False, help="For values of layers at a time."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", min=0, show_default=False, help="Of drift, to name the first layer over it."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", metavar="N", min=1, show_default=False, help="Threads; one if not given."),
    ] = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> int:
    """Measure how far a model has drifted from another, and whether that is allowed."""
    from sparsify import api

    start = time.perf_counter()
    talk.check(reports, junit)
    asked: dict[str, Any] = {"baseline": baseline, "labels": labels, "metrics": metric or ()}
    asked["kinds"] = dict(map(_kind, kind or ()))
    asked["reading"] = options.reading(tokenizer, preprocess, trust_data)
    asked["save_worst"] = save_worst
    if memory is not None:
        asked["memory"] = memory * 2**20
    if threshold is not None:
        asked["threshold"] = threshold
    if threads is not None:
        asked["threads"] = threads
    if data is None:
        talk.say(f"warning: {api.SYNTHETIC}", quiet=quiet)
    with talk.progress(quiet=quiet) as listener:
        found = api.report_of(base, candidate, data, budget or (), layers=layers, seed=seed, progress=listener, **asked)
    talk.deliver(found, reports, junit, time.perf_counter() - start)
    if save_worst is not None:
        talk.say(f"wrote {save_worst}: the worst {len(found['saved']['samples'])} samples", quiet=quiet)
    if not found["accepted"]:
        undecided = found["drift"]["state"] == "undecided"
        hint = "judge on more samples" if undecided else "--layers shows where the drift comes from"
        talk.complain(f"error: {found['summary']} ({candidate})\n\nhint: {hint}")
        return int(ExitStatus.REFUSED)
    return int(ExitStatus.OK)


def _kind(text: str) -> tuple[str, str]:
    output, sign, kind = text.rpartition("=")
    if not sign or not output:
        raise UsageError("a kind is OUTPUT=KIND", where=f"--kind {text}", hint="for example `--kind y=logits`")
    return output, kind
