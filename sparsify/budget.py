"""Budgets: what drift is allowed, as text `METRIC[@OUTPUT](>=|<=)NUMBER` and back.

    cosine>=0.99    sqnr_db >= 30    top1_agreement@logits>=0.99    max_abs<=1e-3

What the metrics mean is defined in `sparsify.audit.metrics`.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, field
from typing import NoReturn

from sparsify.errors import UsageError

# The output's name may hold anything; the last comparison is the budget's.
_GRAMMAR = re.compile(r"\s*(?P<metric>\w+)\s*(?:@(?P<output>.+?))?\s*(?P<sign>>=|<=)(?P<number>[^<>=]+)", re.DOTALL)


@dataclass(frozen=True)
class Metric:
    """A way to measure drift.

    Attributes:
        name: as budgets and reports spell it.
        higher_is_better: whether a budget is a lower bound.
        low, high: the values that it can take.
        what: one line for people.
    """

    name: str
    higher_is_better: bool
    low: float
    high: float
    what: str

    @property
    def sign(self) -> str:
        """The comparison that a budget of this metric uses."""
        return ">=" if self.higher_is_better else "<="


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("cosine", True, -1, 1, "cosine of the angle between the outputs of a sample, averaged"),
        Metric("sqnr_db", True, -math.inf, math.inf, "power of the base's output over power of the drift, decibel"),
        Metric("relative_l2", False, 0, math.inf, "norm of the drift over norm of the base's output"),
        Metric("max_abs", False, 0, math.inf, "largest absolute difference of an element"),
        Metric("mean_abs", False, 0, math.inf, "mean absolute difference of the elements"),
        Metric(
            "psnr_db", True, -math.inf, math.inf, "squared range of the base's maps over mean squared drift, decibel"
        ),
        Metric("top1_agreement", True, 0, 1, "share of rows whose largest class stays the same"),
        Metric("top5_agreement", True, 0, 1, "share of a row's five largest classes that stay among them"),
        Metric("flips", False, 0, 1, "share of rows whose largest class changes"),
        Metric("kl_divergence", False, 0, math.inf, "information lost, base to candidate, averaged over rows, nats"),
        Metric("js_divergence", False, 0, math.log(2), "divergence from the mean of both, averaged over rows, nats"),
        Metric("token_agreement", True, 0, 1, "share of tokens for which the likeliest next one stays the same"),
        Metric("perplexity_ratio", False, 0, math.inf, "perplexity of the candidate over that of the base"),
        Metric("neighbour_agreement", True, 0, 1, "share of a sample's ten nearest samples that stay among them"),
        Metric("box_iou", True, 0, 1, "intersection over union of a box before and after, averaged"),
        Metric("agreement", True, 0, 1, "share of integer or bool elements that stay the same"),
        Metric("accuracy_drop", False, -1, 1, "share of right classes, the base's less the candidate's; needs labels"),
        Metric("f1_drop", False, -1, 1, "macro F1 of the base less that of the candidate; needs labels"),
        Metric("spearman_drop", False, -2, 2, "rank correlation with labels, the base's less the candidate's"),
    )
}
_OURS = frozenset(METRICS)


def add(metric: Metric) -> bool:
    """Let budgets know a metric that somebody brings, from now on; False where one of ours has its name."""
    if metric.name in _OURS:
        return False
    METRICS[metric.name] = metric
    return True


@dataclass(frozen=True)
class Budget:
    """A demand on one metric. `str()` gives the text that `parse` reads back.

    Attributes:
        metric: a key of METRICS.
        limit: the worst value that is allowed.
        output: name of the output; None for every output that has the metric.
        reason: why it is demanded, for people; no part of its text.

    Raises:
        UsageError: no such metric, or a limit that the metric cannot reach, or that all values reach.
    """

    metric: str
    limit: float
    output: str | None = None
    reason: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            near = difflib.get_close_matches(self.metric, METRICS, 1)
            known = ", ".join(METRICS)
            _refuse(str(self.metric), "no such metric", f"did you mean `{near[0]}`? known: {known}" if near else known)
        metric = METRICS[self.metric]
        if not metric.low <= self.limit <= metric.high:  # also refuses NaN
            _refuse(
                str(self),
                f"`{self.metric}` is between {metric.low:g} and {metric.high:g}, got {self.limit:g}",
                f"for example `{self.metric}{metric.sign}{_EXAMPLES.get(self.metric, 1)}`",
            )

    def __str__(self) -> str:
        where = f"@{self.output}" if self.output is not None else ""
        sign = METRICS[self.metric].sign if self.metric in METRICS else "?"
        return f"{self.metric}{where}{sign}{self.limit!r}"

    def allows(self, value: float) -> bool:
        """Whether `value` is inside; NaN never is."""
        return value >= self.limit if METRICS[self.metric].higher_is_better else value <= self.limit


def parse(text: str) -> Budget:
    """A budget from text.

    Raises:
        UsageError: not of the form, an unknown metric, the comparison that makes no sense for it, or a
            number that it cannot reach.
    """
    if (found := _GRAMMAR.fullmatch(text)) is None:
        _refuse(text, "a budget is METRIC[@OUTPUT](>=|<=)NUMBER", "for example `cosine>=0.99`")
    metric, output, sign = found["metric"], found["output"], found["sign"]
    try:
        limit = float(found["number"])
    except ValueError:
        _refuse(text, f"not a number: `{found['number'].strip()}`", "for example `cosine>=0.99`")
    try:
        budget = Budget(metric, limit, None if output is None else output.strip())
    except UsageError as error:
        _refuse(text, error.what, error.hint)  # in the words that were written
    if sign != METRICS[metric].sign:
        better = "higher" if METRICS[metric].higher_is_better else "lower"
        _refuse(text, f"`{metric}` is better when it is {better}", f"write `{budget}`")
    return budget


_EXAMPLES = {
    "cosine": "0.99",
    "sqnr_db": "30",
    "relative_l2": "0.05",
    "max_abs": "0.001",
    "mean_abs": "0.0001",
    "psnr_db": "40",
    "top1_agreement": "0.99",
    "top5_agreement": "0.95",
    "flips": "0.01",
    "kl_divergence": "0.01",
    "js_divergence": "0.01",
    "token_agreement": "0.98",
    "perplexity_ratio": "1.01",
    "neighbour_agreement": "0.9",
    "box_iou": "0.95",
    "agreement": "0.99",
    "accuracy_drop": "0.01",
    "f1_drop": "0.01",
    "spearman_drop": "0.01",
}


def _refuse(text: str, what: str, hint: str) -> NoReturn:
    raise UsageError(what, where=f"budget `{text}`", hint=hint)
