"""What an output is, which decides the metrics that it has.

kind            decided by                                                       metrics beside those of all floats
logits          name: logit, softmax, prob, score, class; rank 2 or 3            top1, top5 agreement, flips, KL, JS
probabilities   values: rows >= 0 that sum to 1 within 1e-3; rank 2 or 3         the same
scores          named prob, softmax or score; all values in [0, 1], no rows of   top1, top5 agreement, flips
                sum 1: independent answers, not one distribution
token_logits    logits [B, T, V], and the feed has integer ids [B, T], all < V   token agreement, perplexity, KL, JS
embeddings      name: embed, feature, pool, vector; or rows of length 1 within   neighbour agreement
                1e-3; rank 2, 8 columns or more
boxes           name: box; last axis 4; x1 <= x2 and y1 <= y2 in all             mean intersection over union
maps            rank 4, or rank 3 with a name of mask, map, image, depth, heat,  PSNR
                alpha, saliency; not one of keys, values, states
other           all else

Values are those of the base in the first feed that has any. The first line that fits decides, from probabilities
downwards, then logits. `--kind OUTPUT=KIND` decides instead; so does a budget that names the output and a
metric that only some kinds have. What is not made of floats has `agreement` and no kind.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sparsify.audit.measures.boxes import add_boxes
from sparsify.audit.measures.classes import TOP, Classes, Tokens
from sparsify.audit.metrics import Floats, Rows, is_float
from sparsify.data import Array, Feed
from sparsify.errors import UsageError

FLOAT_METRICS = ("cosine", "sqnr_db", "relative_l2", "max_abs", "mean_abs")
_DIVERGENCES = ("kl_divergence", "js_divergence")
_CLASSES = ("top1_agreement", "flips", "top5_agreement")
KINDS: dict[str, tuple[str, ...]] = {
    "logits": (*_CLASSES, *_DIVERGENCES),
    "probabilities": (*_CLASSES, *_DIVERGENCES),
    "scores": _CLASSES,
    "token_logits": ("token_agreement", "perplexity_ratio", *_DIVERGENCES),
    "embeddings": ("neighbour_agreement",),
    "maps": ("psnr_db",),
    "boxes": ("box_iou",),
    "other": (),
}
CLASS_LIKE = ("logits", "probabilities", "scores")

_TOLERANCE = 1e-3  # a float16 softmax over 1000 classes sums to 1 within 1000 * 2^-11 * 1e-3
_NARROWEST = 8  # columns of an embedding whose name says nothing
_GLIMPSE = 1 << 20  # elements that are looked at


def _word(*words: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|[^a-z])(?:{'|'.join(words)})")


_CLASS = _word("logit", "prob", "softmax", "score", "class")
_NOT_CLASS = _word("embed", "hidden", "feature", "state")
_SCORE = _word("prob", "softmax", "score")
_EMBEDDING = _word("embed", "feature", "pool", "vector")
_MAP = _word("mask", "map", "image", "depth", "heat", "alpha", "saliency")
_NOT_MAP = _word("key", "value", "state", "hidden", "present", "past", "cache", "attention")
_NOT_IDS = _word("type", "mask", "position", "segment")


def decide(name: str, base: Array, feed: Feed, told: str | None, asked: Iterable[str]) -> str:
    """The kind of output `name`, an array of floats that is not empty.

    Args:
        name, base, feed: of the first feed for which the output is not empty.
        told: the kind that a person gave it.
        asked: metrics that budgets want of this output by name.

    Raises:
        UsageError: it cannot be what it was told to be.
    """
    if told is not None:
        if not _fits(told, base, feed):
            raise UsageError(
                f"output `{name}` {list(base.shape)} cannot be {told}", where=f"--kind {name}={told}", hint=_HINTS[told]
            )
        return told
    found = _guess(name, base, feed)
    wanted = set(asked) - set(FLOAT_METRICS)
    having = [kind for kind, metrics in KINDS.items() if wanted <= set(metrics) and _fits(kind, base, feed)]
    return found if not having or found in having else having[0]


def check(kinds: Mapping[str, str], outputs: Sequence[str]) -> None:
    """Refuse kinds that there are not, and kinds of outputs that the model does not have.

    Raises:
        UsageError: says which there are.
    """
    for output, kind in kinds.items():
        for what, word, known in (("kind", kind, list(KINDS)), ("output", output, list(outputs))):
            if word not in known:
                near = difflib.get_close_matches(word, known, 1)
                hint = f"did you mean `{near[0]}`? " if near else ""
                raise UsageError(
                    f"there is no {what} `{word}`",
                    where=f"--kind {output}={kind}",
                    hint=f"{hint}{what}s are {', '.join(known)}",
                )


def rows(kind: str, base: Array, feed: Feed, samples: int) -> tuple[Rows, ...]:
    """What an output of `kind` adds to the sums of its samples, for one feed."""
    if kind == "boxes":
        return (add_boxes,)
    if kind == "token_logits":
        return (Classes(tokens=_tokens(base, feed, samples)),)
    if kind in CLASS_LIKE:
        return (Classes(logits=kind == "logits", divergence=kind != "scores"),)
    return ()


def metrics_of(kind: str, classes: int) -> tuple[str, ...]:
    """The metrics of an output of floats; `classes` is the length of its last axis."""
    return tuple(m for m in (*FLOAT_METRICS, *KINDS[kind]) if m != "top5_agreement" or classes > TOP)


def _guess(name: str, base: Array, feed: Feed) -> str:
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    if base.ndim in (2, 3) and base.shape[-1] >= 2:
        if is_distribution(base):
            return "probabilities"
        if names_classes(name):
            if _SCORE.search(plain) and not re.search("logit", plain) and _between_0_and_1(base):
                return "scores"
            return "logits" if _ids(base, feed) is None else "token_logits"
    if "box" in plain and _fits("boxes", base, feed) and _ordered(base):
        return "boxes"
    if base.ndim == 2 and (_EMBEDDING.search(plain) or (base.shape[-1] >= _NARROWEST and _are_units(base))):
        return "embeddings"
    if not _NOT_MAP.search(plain) and (base.ndim == 4 or (base.ndim == 3 and _MAP.search(plain))):
        return "maps"
    return "other"


_HINTS = {
    **dict.fromkeys(CLASS_LIKE, "these have rank 2 or more and at least 2 classes along the last axis"),
    "token_logits": "these are [batch, tokens, vocabulary], and the feed has the ids, integers [batch, tokens]",
    "embeddings": "these are [batch, width]",
    "maps": "these have rank 2 or more",
    "boxes": "these have x1, y1, x2, y2 along the last axis and rank 2 or more",
}


def _fits(kind: str, base: Array, feed: Feed) -> bool:
    if kind == "other":
        return True
    if base.ndim < 2:
        return False
    if kind == "token_logits":
        return _ids(base, feed) is not None
    if kind == "embeddings":
        return base.ndim == 2
    return kind == "maps" or (base.shape[-1] == 4 if kind == "boxes" else base.shape[-1] >= 2)


def names_classes(name: str) -> bool:
    """Whether an output's name says that its last axis are classes."""
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return bool(_CLASS.search(plain)) and not _NOT_CLASS.search(plain)


def is_distribution(array: Array) -> bool:
    """Whether every row of the last axis is a probability distribution."""
    if not is_float(array) or not 2 <= array.ndim <= 3 or array.shape[-1] < 2 or not array.size:
        return False
    seen = _glimpse(array)
    return bool((seen >= 0).all() and (np.abs(seen.sum(-1) - 1) <= _TOLERANCE).all())


def _glimpse(array: Array) -> Floats:
    """The first rows, [some, width], as float64."""
    lines = array.reshape(-1, array.shape[-1])
    return np.asarray(lines[: max(1, _GLIMPSE // lines.shape[-1])], np.float64)


def _between_0_and_1(array: Array) -> bool:
    seen = _glimpse(array)
    return bool(((seen >= 0) & (seen <= 1)).all())


def _ordered(array: Array) -> bool:
    seen = _glimpse(array)
    return bool((seen[:, :2] <= seen[:, 2:]).all())


def _are_units(array: Array) -> bool:
    return bool((np.abs(np.linalg.norm(_glimpse(array), axis=-1) - 1) <= _TOLERANCE).all())


def _ids(base: Array, feed: Feed) -> Array | None:
    """The ids that token logits [B, T, V] belong to: the feed's first integers [B, T] that are no mask or the like."""
    if base.ndim != 3:
        return None
    for name, array in feed.items():
        if array.dtype.kind in "iu" and array.shape == base.shape[:2] and not _NOT_IDS.search(name.lower()):
            return array if array.size and array.min() >= 0 and array.max() < base.shape[-1] else None
    return None


def _tokens(base: Array, feed: Feed, samples: int) -> Tokens:
    """Which tokens the mask shows, and which id each foretells: the next one, if that is shown too."""
    ids = _ids(base, feed)
    following = np.full(base.shape[:2], -1, np.int64)
    seen = np.ones(base.shape[:2], np.bool_)
    for name, array in feed.items():
        if "mask" in name.lower() and array.shape == seen.shape:
            seen = array.astype(np.bool_)
    if ids is not None:
        following[:, :-1] = np.where(seen[:, 1:], ids[:, 1:], -1)
    return Tokens(seen.reshape(samples, -1), following.reshape(samples, -1))
