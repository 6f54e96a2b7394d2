"""Which changes break the budget: faults planted in models that are also renamed, fused or quantised."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsify import runtime
from sparsify.audit import audit
from sparsify.audit.attribution.layers import MEMORY
from sparsify.audit.attribution.matching import match
from sparsify.audit.attribution.sides import Side
from sparsify.audit.bisection import Bisection, bisect
from sparsify.audit.bisection.hybrids import Hybrids
from sparsify.audit.bisection.search import culprits
from sparsify.audit.bisection.units import pairs, units
from sparsify.budget import parse
from sparsify.errors import InputError
from tests.audit import faults
from tests.audit.encoder import encoder, feed, renamed
from tests.audit.faults import weight_fault
from tests.audit.test_faults import Model, anew, as_is, fused, quantised
from tests.small import feed as vector_feed
from tests.small import mlp

FEEDS = [feed(1), feed(2)]
UP, DOWN, V = "/l0_up_proj/MatMul", "/l1_down_proj/MatMul", "/l1_v_proj/MatMul"
MADE = [as_is, anew, fused, quantised]


def search(candidate: Model, budget: str, base: Model | None = None) -> Bisection:
    return bisect(base or encoder(), candidate, FEEDS, [parse(budget)], threads=1)


def noisy(scale: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda w: w + scale * np.abs(w).mean() * np.random.default_rng(0).standard_normal(w.shape)


def names(found: Bisection) -> list[set[str]]:
    """Nodes of the base in each set."""
    return [{name for unit in one.units for name in unit.base_nodes} for one in found.guilty]


def usage(candidate: Model) -> float:
    """Relative L2 of the output, the bound that speaks against it."""
    return audit(encoder(), candidate, FEEDS, threads=1).outputs["y"].metrics["relative_l2"].high


@given(
    st.integers(1, 40).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.frozensets(st.integers(0, n - 1), min_size=1), max_size=3))
    )
)
def test_sets_fail_no_member_can_be_left_out_and_the_rest_does_not_fail(
    problem: tuple[int, list[frozenset[int]]],
) -> None:
    count, causes = problem

    def fails(chosen: frozenset[int]) -> bool:
        return any(cause <= chosen for cause in causes)

    found = culprits(range(count), fails)
    for one in found:
        assert frozenset(one) in causes  # failing is monotone here: a set is minimal when it is one of the causes
    everything = [i for one in found for i in one]
    assert len(everything) == len(set(everything))
    assert not fails(frozenset(range(count)).difference(everything))


@pytest.mark.parametrize("count", [1, 2, 7, 64, 100])
def test_one_guilty_change_takes_few_tests(count: int) -> None:
    for guilty in range(count):
        asked: list[frozenset[int]] = []
        found = culprits(range(count), lambda chosen: bool(asked.append(chosen)) or guilty in chosen)  # noqa: B023
        assert found == [(guilty,)]
        # The whole, the search, and that the rest does not fail.
        assert len(asked) <= 1 + 2 * math.ceil(math.log2(guilty + 1)) + 1 + 1


def test_errors_that_cancel_do_not_mislead_it() -> None:
    """2 fails alone, and 0 makes up for it: what is named fails, and no member can be left out."""

    def fails(chosen: frozenset[int]) -> bool:
        return (2 in chosen and 0 not in chosen) or {0, 1, 2, 3} <= chosen

    for one in culprits(range(4), fails):
        assert fails(frozenset(one))
        assert not any(fails(frozenset(one) - {i}) for i in one)


@pytest.mark.parametrize("made", MADE)
def test_a_mixture_with_everything_is_the_candidate_and_with_nothing_the_base(
    made: Callable[[Model, Path], Model], tmp_path: Path
) -> None:
    base = encoder()
    candidate = made(faults.transposed_weight(base)[0], tmp_path)
    with runtime.probe(base, threads=1) as before, runtime.probe(candidate, threads=1) as after:
        old, new = Side(before, FEEDS[0]), Side(after, FEEDS[0])
        partner = pairs(old, new, match(old, new, FEEDS[0], MEMORY).partner)
        found = units(old, new, partner)
        hybrids = Hybrids(old, new, partner)
        mixed = [hybrids.model({v for u in taken for v in u.values}) for taken in ([], found)]
    for model, whole in zip(mixed, (base, candidate), strict=True):
        onnx.checker.check_model(model) if made in (as_is, anew) else None
        got, wanted = (runtime.run(runtime.session(m, threads=1), FEEDS[0])["y"] for m in (model, whole))
        # The same nodes; onnxruntime may fuse across cut points in one and not in the other: a few roundings of fp32.
        assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("made", MADE)
def test_one_guilty_node_is_found(made: Callable[[Model, Path], Model], tmp_path: Path) -> None:
    base = encoder()
    candidate, guilty = weight_fault(base, UP, noisy(2))
    clean, faulty = usage(made(base, tmp_path)), usage(made(candidate, tmp_path))
    found = search(made(candidate, tmp_path), f"relative_l2<={(clean + faulty) / 2}")
    assert not found
    assert [guilty & one for one in names(found)] == [guilty]
    assert found.rest is None or found.rest
    assert found.audits <= 2 + 2 * math.ceil(math.log2(max(found.changes, 2))) + 2


def test_two_that_break_it_together_are_one_set() -> None:
    base = encoder()
    first, second = (weight_fault(base, name, noisy(1))[0] for name in (UP, DOWN))
    both, _ = weight_fault(first, DOWN, noisy(1))
    alone = max(map(usage, (first, second)))
    assert usage(both) > alone * 1.05
    found = search(both, f"relative_l2<={(alone + usage(both)) / 2}")
    assert [one & {UP, DOWN} for one in names(found)] == [{UP, DOWN}]


def test_two_that_break_it_each_are_two_sets() -> None:
    both, _ = weight_fault(weight_fault(encoder(), UP, noisy(2))[0], DOWN, noisy(2))
    found = search(both, "relative_l2<=0.02")
    assert sorted(name for one in names(found) for name in one) == sorted([UP, DOWN])
    assert len(found.guilty) == 2


def test_nothing_is_searched_for_inside_the_budget() -> None:
    found = search(weight_fault(encoder(), UP, noisy(0.01))[0], "relative_l2<=0.5")
    assert found
    assert (found.guilty, found.audits) == ((), 1)


def test_a_product_and_its_bias_go_together() -> None:
    other, _ = weight_fault(encoder(), UP, noisy(2))
    other, _ = weight_fault(other, "/l0_up/Add", lambda b: b - 1)
    found = search(other, "relative_l2<=0.02")
    assert names(found) == [{UP, "/l0_up/Add"}]
    assert found.changes == 1


def test_what_became_not_a_number_is_named() -> None:
    other, guilty = weight_fault(encoder(), V, lambda w: w * np.nan)
    assert names(search(other, "relative_l2<=0.5")) == [guilty]


def test_bodies_that_read_from_outside_are_renamed() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        branches (float[batch,64] x) => (float[batch,32] y) {
            h = MatMul(x, w1)
            mean = ReduceMean<keepdims = 0>(h)
            yes = Greater(mean, zero)
            k = If (yes) <then_branch = t () => (float[a,b] p) { p = Mul(h, scale) },
                          else_branch = e () => (float[a,b] q) { q = Neg(h) }>
            y = MatMul(k, w2)
        }"""
    base = onnx.parser.parse_model(text)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in mlp().graph.initializer}
    arrays |= {"zero": np.float32(-1e9), "scale": np.float32(2)}
    for name in ("w1", "w2", "zero", "scale"):
        base.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(arrays[name]), name))
    for node in base.graph.node:
        node.name = node.output[0]
    other = onnx.ModelProto.FromString(base.SerializeToString())
    next(t for t in other.graph.initializer if t.name == "scale").raw_data = np.float32(3).tobytes()
    found = bisect(base, other, [vector_feed()], [parse("relative_l2<=0.1")], threads=1)
    assert names(found) == [{"yes", "k"}]  # a bool is no cut point


def test_half_precision_values_are_cast_where_the_models_meet() -> None:
    base = mlp()
    other = mlp(seed=3)  # other weights, so that both products are guilty
    graph = other.graph
    for tensor in graph.initializer:
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
        )
    graph.node.insert(0, onnx.helper.make_node("Cast", ["x"], ["x16"], to=onnx.TensorProto.FLOAT16))
    next(n for n in graph.node if n.op_type == "MatMul").input[0] = "x16"
    last = next(n for n in graph.node if n.op_type == "Gemm")
    last.output[0] = "y16"
    graph.node.append(onnx.helper.make_node("Cast", ["y16"], ["y"], to=onnx.TensorProto.FLOAT))
    found = bisect(base, other, [vector_feed()], [parse("cosine>=0.5")], threads=1)
    assert len(found.guilty) == 2


def test_models_of_other_operator_sets_are_refused() -> None:
    other, _ = weight_fault(mlp(), "", lambda w: -w)
    other.opset_import[0].version = 18
    with pytest.raises(InputError, match="version 17 and 18"):
        bisect(mlp(), other, [vector_feed()], [parse("cosine>=0.99")], threads=1)


def test_a_renamed_copy_has_no_changes() -> None:
    base, (other, _) = encoder(), renamed(encoder(), numbered=True)
    with runtime.probe(base, threads=1) as before, runtime.probe(other, threads=1) as after:
        old, new = Side(before, FEEDS[0]), Side(after, FEEDS[0])
        assert units(old, new, pairs(old, new, match(old, new, FEEDS[0], MEMORY).partner)) == []
