"""Both models against labels, and whether the candidate does worse: paired, for both saw the same samples.

labels        outputs that fit                                                     figure      test
classes       one row of classes a sample, or one integer a sample                 accuracy    McNemar (1947), exact
                                                                                   macro F1    paired bootstrap
degrees       one number a sample                                                  Spearman    paired bootstrap
              embeddings: the cosine of samples 2i and 2i + 1; one label a pair    Spearman    paired bootstrap

drop = figure of the base - figure of the candidate. With f of n samples that only the base gets right and g that only
the candidate does, the drop of accuracy is (f - g) / n. Its interval is that of Bonett and Price (2012), which keeps
its coverage where f or g is 0: with p = (f + 1) / (n + 2) and q = (g + 1) / (n + 2), p - q +- z sqrt((p + q - (p -
q)^2) / (n + 2)). McNemar's test asks how probable a split at least as uneven is when f + g coins are tossed. All
others are resampled, both models with the same counts; p is 2 (1 + the smaller number of drops at or beyond 0 on
either side) / (resamples + 1).

Macro F1 is the mean over classes that are labels or answers of 2 tp / (2 tp + fp + fn). Spearman is the correlation
of ranks, equal values sharing their mean rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse, stats

from sparsify.audit.measures.estimate import NORMAL, RESAMPLES, Estimate, draws, percentiles, wilson
from sparsify.audit.metrics import Floats
from sparsify.data import Array


@dataclass(frozen=True)
class Truth:
    """One figure of one output against the labels.

    Attributes:
        output, figure: `accuracy`, `f1` or `spearman` of which output.
        samples: labels that were compared.
        base, candidate: the figure of each model.
        drop: base less candidate.
        p_value: of the test that they are equally good.
        test: its name.
    """

    output: str
    figure: str
    samples: int
    base: Estimate
    candidate: Estimate
    drop: Estimate
    p_value: float
    test: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON carries it; a figure that is not finite is null."""
        return {
            "output": self.output,
            "figure": self.figure,
            "samples": self.samples,
            "base": self.base.to_dict(),
            "candidate": self.candidate.to_dict(),
            "drop": self.drop.to_dict(),
            "p_value": self.p_value,
            "test": self.test,
        }


def accuracy(output: str, right: Array, base: Array, candidate: Array) -> Truth:
    """Accuracy of both models' answers, and what McNemar's test says of the difference."""
    n, old, new = len(right), base == right, candidate == right
    lost, won = int((old & ~new).sum()), int((new & ~old).sum())
    p, q = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    half = NORMAL * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    value = (lost - won) / n
    drop = Estimate(value, min(value, max(-1.0, p - q - half)), max(value, min(1.0, p - q + half)))
    chance = float(stats.binomtest(lost, lost + won).pvalue) if lost + won else 1.0
    sides = [wilson(float(side.mean()), n) for side in (old, new)]
    return Truth(output, "accuracy", n, sides[0], sides[1], drop, chance, "McNemar, exact")


Figure = Callable[[Floats], Floats]  # of counts [resamples, n]


def resampled(output: str, name: str, base: Figure, candidate: Figure, n: int, seed: int) -> Truth:
    whole = np.ones((1, n))
    value = [float(figure(whole)[0]) for figure in (base, candidate)]
    parts = [(base(counts), candidate(counts)) for counts in draws(n, seed)]
    drawn = [np.nan_to_num(np.concatenate([part[side] for part in parts])) for side in (0, 1)]
    drops = drawn[0] - drawn[1]
    beyond = min(int((drops <= 0).sum()), int((drops >= 0).sum()))
    chance = min(1.0, 2 * (1 + beyond) / (RESAMPLES + 1))
    sides = [percentiles(v, d, n) for v, d in zip(value, drawn, strict=True)]
    drop = percentiles(value[0] - value[1], drops, n)
    return Truth(output, name, n, sides[0], sides[1], drop, chance, "paired bootstrap")


def f1(right: Array, answers: Array) -> Figure:
    known, codes = np.unique(np.concatenate([right, answers]), return_inverse=True)
    n, rows = len(right), np.arange(len(right))

    def indicator(which: Array, weight: Array) -> Any:
        return sparse.csr_matrix((weight, (rows, which)), shape=(n, len(known)))

    truth, said = codes[:n], codes[n:]
    both = indicator(truth, (truth == said).astype(np.float64))
    either = indicator(truth, np.ones(n)) + indicator(said, np.ones(n))

    def figure(counts: Floats) -> Floats:
        hits, total = np.asarray(counts @ both), np.asarray(counts @ either)
        seen = total > 0
        return np.asarray(np.divide(2 * hits, total, out=np.zeros_like(total), where=seen).sum(-1) / seen.sum(-1))

    return figure


def spearman(right: Array, answers: Array) -> Figure:
    ranks = [_ranks(side) for side in (right, answers)]

    def figure(counts: Floats) -> Floats:
        x, y = (of(counts) for of in ranks)
        middle = (counts.sum(-1, keepdims=True) + 1) / 2  # the mean of ranks, whatever is equal
        x, y = x - middle, y - middle
        spread = (counts * x * x).sum(-1) * (counts * y * y).sum(-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((counts * x * y).sum(-1) / np.sqrt(spread))

    return figure


def _ranks(values: Array) -> Figure:
    """Ranks [resamples, n] that values have among themselves when each is there as often as it was drawn."""
    known, codes = np.unique(values, return_inverse=True)
    table = sparse.csr_matrix((np.ones(len(values)), (np.arange(len(values)), codes)), shape=(len(values), len(known)))

    def ranks(counts: Floats) -> Floats:
        together = np.asarray(counts @ table)
        return np.asarray((np.cumsum(together, axis=-1) - together + (together + 1) / 2)[:, codes])

    return ranks
