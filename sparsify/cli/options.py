"""Options that several commands share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sparsify.data import Reading

DATA_HELP = "A .npz, a folder or glob of them, text:FILE, images:FOLDER or MODULE:FUNCTION; see docs/data.md."
Model = Annotated[str, typer.Argument(metavar="MODEL", help="The .onnx file.", show_default=False)]
Data = Annotated[
    str | None,
    typer.Option("--data", metavar="DATA", help=DATA_HELP, show_default=False),
]
Tokenizer = Annotated[
    Path | None,
    typer.Option("--tokenizer", metavar="FILE", help="A tokenizer.json, for --data text:FILE.", show_default=False),
]
Preprocess = Annotated[
    Path | None,
    typer.Option(
        "--preprocess",
        metavar="FILE",
        help="A .toml or .json that says how pictures become arrays, for --data images:FOLDER.",
        show_default=False,
    ),
]
TrustData = Annotated[
    bool, typer.Option("--trust-data", help="Unpickle objects in .npz and .npy: that runs code from the file.")
]
Budgets = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        metavar="EXPR",
        help="METRIC[@OUTPUT](>=|<=)NUMBER, such as cosine>=0.99, or a .toml file of them. May be repeated.",
        show_default=False,
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        metavar="MODULE:FUNCTION",
        show_default=False,
        help="A metric of your own: (base, candidate, feed) of one sample to a number. Runs its code.",
    ),
]
Reports = Annotated[
    list[Path] | None,
    typer.Option(
        "--report", metavar="FILE", help="Write a report: .json .html .md or .xml. May be repeated.", show_default=False
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", metavar="N", min=1, help="Threads; one a physical core if not given.", show_default=False
    ),
]
Rows = Annotated[
    int | None,
    typer.Option("--rows", metavar="M", min=1, help="Rows that linear layers will see.", show_default=False),
]
Memory = Annotated[
    int | None,
    typer.Option(
        "--memory",
        metavar="MIB",
        min=1,
        help="MiB to keep while learning from data; a quarter of the machine's if not given.",
        show_default=False,
    ),
]
Parallel = Annotated[
    str | None,
    typer.Option(
        "--parallel",
        metavar="URL",
        help="dask://HOST:PORT or ray://HOST:PORT: machines to spread the work over; see docs/parallel.md.",
        show_default=False,
    ),
]
Effort = Annotated[
    int,
    typer.Option("--effort", min=0, max=3, help="Of a search: how many sparsities and how many plans it tries."),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of everything random.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No talk on stderr but errors.")]


def reading(tokenizer: Path | None, preprocess: Path | None, trust: bool) -> Reading:
    """What the data needs to be read."""
    from sparsify.data import Reading

    return Reading(tokenizer, preprocess, trust)
