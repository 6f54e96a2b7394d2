"""What docs/accuracy.md measures: a model, what calibrates it, and what its answers are worth."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import brown, lines, newsgroups, photos
from models import digits, llama, mnist
from models.bert import minilm_l6
from models.fetch import fetch
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
        heads: layers that int8 alone changes besides: no pruning touches a weight that is an embedding, too.
        levels: N:64 patterns that are measured.
        int8: whether what was pruned is rounded to int8 as well; if not, it stays fp32.
        setting: what may differ between rows that were measured at different times; the page says where it does.
    """

    title: str
    about: str
    model: Callable[[], Path]
    calibration: Callable[[], list[Feed]]
    answer: Callable[[Session], Answers]
    score: Callable[[Answers, Answers], dict[str, float]]
    columns: Mapping[str, tuple[str, str]]
    layers: int
    heads: int = 0
    levels: tuple[str, ...] = ("32:64", "24:64", "16:64", "8:64")
    int8: bool = True
    setting: str = ""


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
    return _logits_score(labels[len(labels) // 2 :], base, other)


def _logits_score(labels: npt.NDArray[np.int64], base: Answers, other: Answers) -> dict[str, float]:
    before, after = base["logits"].astype(np.float64), other["logits"].astype(np.float64)
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return {
        "accuracy": float((after.argmax(axis=1) == labels).mean()),
        "flips": float((after.argmax(axis=1) != before.argmax(axis=1)).mean()),
        "cosine": float((np.einsum("bn,bn->b", before, after) / lengths).mean()),
    }


def _looked(session: Session) -> Answers:
    return {"maps": photos.maps(session)}


def _overlap(base: Answers, other: Answers) -> dict[str, float]:
    each = photos.overlap(base["maps"], other["maps"])
    mae = np.abs(base["maps"] - other["maps"]).mean(dtype=np.float64)
    return {"iou": float(each.mean()), "worst": float(each.min()), "mae": float(mae)}


def _read_lines(session: Session) -> Answers:
    return {"readings": np.array(lines.read(session))}


def _lines_score(base: Answers, other: Answers) -> dict[str, float]:
    truth, readings = lines.texts(brown.JUDGED, lines.JUDGED), other["readings"].tolist()
    exact = [a == b for a, b in zip(truth, readings, strict=True)]
    return {
        "exact": float(np.mean(exact)),
        "cer": lines.wrong_characters(truth, readings),
        "flips": float((base["readings"] != other["readings"]).mean()),
    }


def _mnist(*, judged: bool) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Images [N, 1, 28, 28] and labels [N]: every tenth calibrates, the other nine are judged."""
    with gzip.open(fetch("mnist-5k"), "rt") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.float32)
    rows = rows[(np.arange(len(rows)) % 10 > 0) == judged]
    grey = (rows[:, :-1].reshape(-1, 1, 28, 28) / 255 - mnist.MEAN) / mnist.SPREAD
    return grey.astype(np.float32), rows[:, -1].astype(np.int64)


def _classified_digits(session: Session) -> Answers:
    (logits,) = session.run(["logits"], {"input": _mnist(judged=True)[0]})
    return {"logits": logits}


def _mnist_score(base: Answers, other: Answers) -> dict[str, float]:
    return _logits_score(_mnist(judged=True)[1], base, other)


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
* Two settings of `auto` (`correction`, the steps of rho) were chosen by layer errors and by the cosine of some of these
  test posts, never by accuracy: the cosines of `auto` may flatter it a little. The number of windows was chosen by
  layer errors on calibration posts that were left out.""",
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
        setting=f"{newsgroups.WINDOWS} windows",
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
    "vit": Task(
        title="ViT-S/14: where a picture is looked at, photographs",
        about=f"""{len(photos.CALIBRATION)} photographs of scikit-image calibrate, {len(photos.JUDGED)} others are
judged: {photos.CROPS} squares of each. There is no truth: all figures are against the maps of the fp32 model.

* IoU: of the pixels above 0.5, mean and worst square. MAE: mean absolute difference of the maps, which go from 0 to
  1.""",
        model=lambda: fetch("vit-saliency"),
        calibration=photos.calibration,
        answer=_looked,
        score=_overlap,
        columns={"iou": ("IoU", ".3f"), "worst": ("worst", ".3f"), "mae": ("MAE", ".4f")},
        layers=72,
    ),
    "ocr": Task(
        title="PP-OCRv6 recogniser: rendered lines",
        about=f"""{lines.LEARNT} lines of the Brown corpus, in one font with noise, calibrate; {lines.JUDGED} lines of
other samples are read. Nine linear layers, most of their weights in the last, 120 x 18710; convolutions stay as they
are.

* exact: share of lines read without a fault; its standard error is .02. CER: wrong characters, as a share. flips: share
  of lines that the fp32 model reads otherwise.""",
        model=lambda: fetch("ppocr-recogniser"),
        calibration=lines.calibration,
        answer=_read_lines,
        score=_lines_score,
        columns={"exact": ("exact lines", ".3f"), "cer": ("CER", ".4f"), "flips": ("flips", ".1%")},
        layers=9,
    ),
    "mnist": Task(
        title="A convolutional network for MNIST",
        about="""`models/mnist.py`: two convolutions, which stay as they are, and Gemm 3136-128-10. Of 5000 digits every
tenth calibrates, 4500 are judged; whether some of them were trained on is not known. The standard error of its accuracy
is below .001. cosine: to the fp32 logits, mean.""",
        model=mnist.mnist,
        calibration=lambda: [{"input": part} for part in np.array_split(_mnist(judged=False)[0], 8)],
        answer=_classified_digits,
        score=_mnist_score,
        columns={"accuracy": ("accuracy", ".4f"), "flips": ("flips", ".2%"), "cosine": ("cosine", ".4f")},
        layers=2,
    ),
    "smollm2": Task(
        title="SmolLM2-135M: the next token, Brown corpus",
        about=f"""{brown.WINDOWS} windows of {brown.CONTEXT} tokens of {len(brown.CALIBRATION)} samples of the corpus
calibrate, {brown.JUDGED_WINDOWS} windows of eight other samples are judged. All 210 layers inside the decoder are
pruned; the head is the embedding and stays, but for the row of int8. The weights were rounded to four bits in blocks of
32 by those who published them; what is pruned here stays fp32.

* perplexity: exp of the mean loss of a token; its standard error is about 6 %, nearly all of it the text's, which all
  rows share. first 1024: of the first {_FIRST} windows alone.
* flips: share of tokens after which another token than the dense model's is the likeliest.""",
        model=llama.smollm2,
        calibration=brown.calibration,
        answer=_read_on,
        score=_perplexity,
        columns={"perplexity": ("perplexity", ".1f"), "first": ("first 1024", ".1f"), "flips": ("flips", ".1%")},
        layers=210,
        heads=1,
        int8=False,
    ),
}
