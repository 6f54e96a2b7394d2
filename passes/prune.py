"""Zero the weights that the outputs miss least."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sparsify.errors import UsageError
from sparsify.graph import FloatArray, Linear, find_linear, node_name, readers
from sparsify.patterns import Pattern
from sparsify.rewrite import Change, Event, Pass, Refusal, layers
from sparsify.solvers import admm, magnitude, obs
from sparsify.solvers.moments import relative_error

METHODS = ("auto", "admm", "obs", "magnitude")
_HALF = Pattern(32, 64)

Moment = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Prune(Pass):
    """Zeroes weights of linear layers under a pattern, and refits the others where data says what they do.

    What:
        The weight keeps its name, shape and place; values change to zero. It pays once a sparse pass follows.
    When it fires:
        Every MatMul and Gemm with a constant fp32 matrix of `min_size` weights or more. A weight that several
        layers share is pruned once and reported for each. N:M runs along the layer's inputs, whichever way
        the weight is stored.
    When it refuses:
        The weight is smaller, already as sparse, holds a NaN or an infinity, is an output of the model, is read
        by something that is no linear layer (an embedding, say), or is shared by layers that use it in both
        orientations under N:M.
    Mathematics:
        With the second moment H = sum x x^T of a layer's inputs, W' minimises tr((W' - W)^T H (W' - W)), what the
        change does to the outputs: by ADMM over masks and weights and a least-squares refit (`admm`,
        see `sparsify.solvers.admm`), or by the optimal brain surgeon (`obs`, see `sparsify.solvers.obs`).
        Without data W' = W * M keeps the largest |w| (`magnitude`, see `sparsify.solvers.magnitude`).
        `auto` is `admm` for layers whose inputs were captured, else `magnitude`.
    Cost:
        `admm`: an eigendecomposition of H and 4 K^2 N operations an iteration: seconds a layer. None at run time.
    Drift:
        On a sentence transformer of 18 layers at 32:64, mean cosine to the dense embedding on held-out text:
        .96 with `admm`, .94 with `obs`, .79 with `magnitude` (benchmarks/pruning.py).
    Source:
        Han, Pool, Tran, Dally, "Learning both Weights and Connections for Efficient Neural Networks", 2015;
        Frantar, Alistarh, "SparseGPT", 2023; Boža, "Fast and Effective Weight Update", 2024; Meng et al., "ALPS", 2024.
    """

    name: ClassVar[str] = "prune"

    pattern: Pattern = _HALF  # `unstructured` or N:M
    sparsity: float = 0.0  # share of zeros, for `unstructured`; N:M implies its own
    min_size: int = 4096  # weights; smaller matrices are left alone
    method: str = "auto"  # auto, admm, obs or magnitude

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(
                f"there is no method `{self.method}`", where="pass `prune`", hint=f"one of {', '.join(METHODS)}"
            )
        implied = self.pattern.sparsity
        if implied is None and not 0 < self.sparsity < 1:
            raise UsageError(
                f"`sparsity` must be between 0 and 1, got {self.sparsity:g}",
                where="pass `prune`",
                hint="prune{pattern=unstructured,sparsity=0.9} keeps one weight in ten",
            )
        if implied is not None and self.sparsity not in (0, implied):
            raise UsageError(
                f"pattern {self.pattern} means sparsity {implied:g}, not {self.sparsity:g}",
                where="pass `prune`",
                hint="leave `sparsity` out, or take pattern=unstructured",
            )

    @property
    def wants_moments(self) -> bool:
        """Whether `node.meta["moment"]`, H float64 [K, K] of the layer's inputs, would be used."""
        return self.method != "magnitude"

    @property
    def target(self) -> float:
        """Share of zeros aimed at."""
        implied = self.pattern.sparsity
        return self.sparsity if implied is None else implied

    def rewrite(self, model: ir.Model) -> Iterator[Event]:
        done: dict[ir.Value, tuple[str, dict[str, Any]] | str] = {}
        for layer in layers(model):
            if isinstance(layer, Refusal):
                yield layer
                continue
            if layer.source not in done:
                done[layer.source] = self._prune(layer)
            outcome = done[layer.source]
            facts = {"shape": list(layer.shape)}
            if isinstance(outcome, str):
                yield Refusal(layer.name, outcome, facts)
            else:
                yield Change(layer.name, outcome[0], facts | outcome[1])

    def _prune(self, layer: Linear) -> tuple[str, dict[str, Any]] | str:
        """Prune the weight of `layer`: what was done, with facts; or why not."""
        if reason := self._obstacle(layer):
            return reason
        weight = layer.matrix()
        before = 1 - np.count_nonzero(weight) / weight.size
        if not np.isfinite(weight).all():
            return "the weight holds a NaN or an infinity"
        if before >= self.target:
            return f"the weight is already {before:.0%} sparse, the target is {self.target:.0%}"
        if (magnitude.prune(weight, self.pattern, self.sparsity)[0] | (weight == 0)).all():
            return f"the weight already satisfies {self.pattern}"
        moment = _moment(layer) if self.wants_moments else None
        if moment is None and self.method not in ("auto", "magnitude"):
            return f"`{self.method}` needs data that reaches the layer, and none did"
        pruned, method = self._solve(weight, moment)
        _store(layer, pruned)
        after = 1 - np.count_nonzero(pruned) / pruned.size
        facts = {"sparsity": after, "sparsity_before": before, "pattern": str(self.pattern), "method": method}
        if moment is None:
            facts["energy_kept"] = kept = _energy(pruned) / _energy(weight)
            return f"pruned to {self.pattern} by magnitude, {after:.0%} sparse, {kept:.1%} of the energy kept", facts
        facts["output_error"] = error = relative_error(weight, pruned, moment)
        return (
            f"pruned to {self.pattern} by {method}, {after:.0%} sparse, {error:.1%} of the outputs' energy lost",
            facts,
        )

    def _solve(self, weight: FloatArray, moment: Moment | None) -> tuple[FloatArray, str]:
        """W' [K, N] and the method that found it."""
        if moment is None:
            return magnitude.prune(weight, self.pattern, self.sparsity)[1], "magnitude"
        if self.method == "obs":
            return obs.prune(weight, moment, self.pattern, self.sparsity)[1], "obs"
        return admm.prune(weight, moment, self.pattern, self.sparsity)[1], "admm"

    def _obstacle(self, layer: Linear) -> str:
        """Why the weight of `layer` must not be changed; empty if it may."""
        if layer.tensor.size < self.min_size:
            return f"the weight has {layer.tensor.size} weights, fewer than {self.min_size}"
        if layer.source.is_graph_output():
            return "the weight is an output of the model"
        for node, index in readers(layer.source):
            other = find_linear(node)
            if not isinstance(other, Linear) or index != 1:
                return f"the weight is also read by {node.op_type} `{node_name(node)}`"
            if self.pattern.m and other.transposed != layer.transposed:
                return f"the weight is used in both orientations, also by `{other.name}`"
        return ""


def _moment(layer: Linear) -> Moment | None:
    """H summed over all layers that share the weight; None where the data reached none of them."""
    moments = [node.meta["moment"] for node, _ in readers(layer.source) if "moment" in node.meta]
    total = sum(moments[1:], moments[0]) if moments else None
    return total if total is not None and np.trace(total) > 0 else None


def _energy(weight: FloatArray) -> float:
    """Sum of squares, in float64."""
    return float(np.square(weight, dtype=np.float64).sum())


def _store(layer: Linear, weight: FloatArray) -> None:
    """Put W [K, N] where the weight of `layer` is stored, in the orientation in which it is stored."""
    stored = np.ascontiguousarray(weight.T if layer.transposed else weight)
    tensor = ir.tensor(stored, name=layer.tensor.name)
    layer.source.const_value = tensor  # of a Constant node it is a copy that other passes may look at
    if (node := layer.source.producer()) is not None:
        node.attributes["value"] = ir.AttrTensor("value", tensor)
