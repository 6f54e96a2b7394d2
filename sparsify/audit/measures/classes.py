"""Rows that are scores of classes: agreement of the largest, divergence of the distributions, and the next token.

Divergences without cancellation. With t = ln q - ln p the terms of KL(p || q) = sum p (-t) are of first order in the
drift and cancel to a sum of second order. As sum p = sum q = 1,

    KL(p || q) = sum p (e^t - 1 - t),

whose terms are all >= 0. For |t| < 1/2 the bracket is expm1(t) - t; beyond, p e^t is q: q - p - p t. An error of r in
t is one of about p |t| r in the sum, where the first form has p r. Logarithms are those of a softmax that subtracts the
row's maximum first, in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from sparsify.audit.measures.blocks import Block
from sparsify.audit.measures.table import Floats, Sum

TOP = 5
_LEAST = float(np.finfo(np.float32).tiny)  # a smaller probability counts as this: float32 holds no smaller normal one


@dataclass(frozen=True)
class Tokens:
    """What the feed says of token logits, [samples, rows] each.

    Attributes:
        seen: tokens that the attention mask does not hide.
        following: the id that a row foretells; -1 where there is none.
    """

    seen: npt.NDArray[np.bool_]
    following: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Classes:
    """Adds agreement, and divergence if asked for, of rows over classes.

    Attributes:
        logits: rows are logits, not probabilities.
        divergence: whether rows stand for distributions at all.
        tokens: of token logits.
    """

    logits: bool = True
    divergence: bool = True
    tokens: Tokens | None = None

    def __call__(self, block: Block, found: Floats) -> None:
        """Add to the sums of the block's samples. A row with an element that is NaN in both counts in nothing."""
        b, c = block.base, block.candidate
        spoilt = block.bad.any(-1)
        counted = ~np.isnan(b).any(-1)
        counted |= spoilt
        if self.tokens is not None:
            counted &= self.tokens.seen[block.samples, block.rows]
        hits = (b.argmax(-1) == c.argmax(-1)) & ~spoilt & counted
        found[:, Sum.ROWS] += counted.sum(-1)
        found[:, Sum.HITS] += hits.sum(-1)
        found[:, Sum.FLIPPED] = np.maximum(found[:, Sum.FLIPPED], (counted & ~hits).any(-1))
        if b.shape[-1] > TOP:
            found[:, Sum.TOP5] += np.where(counted & ~spoilt, _both_have(b, c), 0).sum(-1)
        if not self.divergence:
            return
        usable = counted & ~spoilt & (b < np.inf).all(-1) & (b > -np.inf).any(-1)
        found[:, Sum.DISTRIBUTIONS] += (usable | spoilt & counted).sum(-1)
        shown = np.expand_dims(usable, -1)
        log_p, log_q = (self._logarithms(np.where(shown, a, 1.0)) for a in (b, c))
        kl, js = divergences(log_p, log_q)
        found[:, Sum.KL] += np.where(usable, kl, 0).sum(-1)
        found[:, Sum.JS] += np.where(usable, js, 0).sum(-1)
        if self.tokens is not None:
            following = self.tokens.following[block.samples, block.rows]
            which = np.maximum(following, 0)[..., None]
            lost = (np.take_along_axis(log_p, which, -1) - np.take_along_axis(log_q, which, -1))[..., 0]
            foretold = (following >= 0) & usable & np.isfinite(lost)
            found[:, Sum.TOKENS] += foretold.sum(-1)
            found[:, Sum.LOSS] += np.where(foretold, lost, 0).sum(-1)

    def _logarithms(self, rows: Floats) -> Floats:
        """ln of the distribution that each row stands for; -inf where a logit is."""
        if self.logits:
            return np.asarray(log_softmax(rows, axis=-1))
        floored = np.maximum(rows, _LEAST)
        return np.asarray(np.log(floored / floored.sum(-1, keepdims=True)))


def divergences(log_p: Floats, log_q: Floats) -> tuple[Floats, Floats]:
    """KL(p || q) and Jensen-Shannon divergence of the distributions along the last axis, nats."""
    p, q = np.exp(log_p), np.exp(log_q)
    log_m = np.logaddexp(log_p, log_q) - np.log(2)
    m = (p + q) / 2
    js = (_divergence(p, m, log_p, log_m) + _divergence(q, m, log_q, log_m)) / 2
    return _divergence(p, q, log_p, log_q), js


def _divergence(p: Floats, q: Floats, log_p: Floats, log_q: Floats) -> Floats:
    with np.errstate(invalid="ignore", over="ignore"):
        t = log_q - log_p
        near = np.expm1(t) - t
        terms = np.where(np.abs(t) < 0.5, p * near, q - p - p * t)
    return np.asarray(np.where(p > 0, terms, q).sum(-1))  # p ln p tends to 0


def _both_have(b: Floats, c: Floats) -> npt.NDArray[np.int64]:
    """How many of the five largest elements of b and of c are the same; elements equal to the fifth count as fifth."""
    large = [a >= np.partition(a, -TOP, axis=-1)[..., -TOP, None] for a in (b, c)]
    return np.asarray(np.minimum(TOP, (large[0] & large[1]).sum(-1)))
