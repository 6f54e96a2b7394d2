import numpy as np
import onnx_ir as ir
import pytest

from sparsify.errors import UsageError
from sparsify.passes.prune import Prune
from sparsify.patterns import Pattern
from tests.running import set_constant


def model_of(body: str, w: np.ndarray, outputs: str = "float[M,N] y") -> ir.Model:
    model = ir.from_onnx_text(f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[M,K] x, int64[I] i) => ({outputs}) <float[1,1] w = {{0}}> {{ {body} }}""")
    set_constant(model, "w", w)
    return model


def stored(model: ir.Model) -> np.ndarray:
    return model.graph.initializers["w"].const_value.numpy()


HALF = Prune(Pattern(2, 4), min_size=1)


def test_prunes_the_smallest_half_of_each_block():
    model = model_of("y = MatMul(x, w)", np.array([[8, 1], [7, 2], [6, 3], [5, 4]], np.float32))
    report = HALF(model)
    assert stored(model).tolist() == [[8, 0], [7, 0], [0, 3], [0, 4]]
    assert report.modified
    assert report.changes[0].facts["sparsity"] == 0.5
    assert report.changes[0].facts["energy_kept"] == pytest.approx((64 + 49 + 9 + 16) / 204)
    again = HALF(model)
    assert not again.modified
    assert "already 50% sparse" in again.refusals[0].reason


@pytest.mark.parametrize("body", ["y = Gemm<transB=1>(x, w)", "t = Transpose(w) y = MatMul(x, t)"])
def test_the_pattern_runs_along_inputs_whichever_way_the_weight_is_stored(rng, body):
    weight = rng.standard_normal((6, 8)).astype(np.float32)  # [N, K]
    model = model_of(body, weight)
    HALF(model)
    blocks = (stored(model) != 0).reshape(6, 2, 4).sum(axis=2)
    assert (blocks == 2).all()
    kept = stored(model) != 0
    assert (stored(model)[kept] == weight[kept]).all()


def test_a_constant_node_is_pruned_in_place():
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]> g (float[M,4] x) => (float[M,1] y)
        { w = Constant<value = float[4,1] {4,3,2,1}>() v = Identity(w) y = MatMul(x, v) }""")
    assert HALF(model).modified
    assert model.graph[0].attributes["value"].as_tensor().numpy().ravel().tolist() == [4, 3, 0, 0]


def test_unstructured(rng):
    model = model_of("y = MatMul(x, w)", rng.standard_normal((10, 10)).astype(np.float32))
    Prune(Pattern(), sparsity=0.9, min_size=1)(model)
    assert np.count_nonzero(stored(model)) == 10


def test_a_shared_weight_is_pruned_once_and_reported_for_each(rng):
    w = rng.standard_normal((8, 8)).astype(np.float32)
    model = model_of("a = MatMul(x, w) y = MatMul(a, w)", w)
    assert [c.node for c in HALF(model).changes] == ["MatMul -> a", "MatMul -> y"]
    assert np.count_nonzero(stored(model)) == 32


@pytest.mark.parametrize(
    ("body", "outputs", "reason"),
    [
        ("a = MatMul(x, w) y = Gather(w, i)", "float[M,N] a, float[I,N] y", "also read by Gather `Gather -> y`"),
        ("a = MatMul(x, w) y = Gemm<transB=1>(a, w)", "float[M,N] y", "both orientations"),
        ("y = MatMul(x, w) v = Identity(w)", "float[M,N] y, float[8,8] v", "also read by Identity"),
        ("y = Gemm(x, w, w)", "float[M,N] y", "also read by Gemm"),
        ("y = MatMul(x, w)", "float[M,N] y, float[8,8] w", "an output of the model"),
    ],
)
def test_weights_that_others_read_are_left_alone(rng, body, outputs, reason):
    w = rng.standard_normal((8, 8)).astype(np.float32)
    model = model_of(body, w, outputs)
    report = HALF(model)
    assert not report.modified
    assert all(reason in r.reason for r in report.refusals)
    assert (stored(model) == w).all()


def test_unstructured_does_not_mind_both_orientations(rng):
    model = model_of("a = MatMul(x, w) y = Gemm<transB=1>(a, w)", rng.standard_normal((8, 8)).astype(np.float32))
    assert len(Prune(Pattern(), 0.5, 1)(model).changes) == 2


def test_a_user_in_a_subgraph_counts(rng):
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (bool c, float[3,8] x) => (float[3,8] z) <float[1,1] w = {0}, int64[1] one = {1},
        int64[1] three = {4}> { y = MatMul(x, w) z = If(c) <
            then_branch = t () => (float[3,8] a) { a = Identity(y) },
            else_branch = e () => (float[3,8] b) { s = Slice(w, one, three) b = Add(y, s) }> }"""
    )
    set_constant(model, "w", rng.standard_normal((8, 8)).astype(np.float32))
    assert "also read by Slice" in HALF(model).refusals[0].reason


def test_tiny_sparse_and_broken_weights_are_refused(rng):
    w = rng.standard_normal((8, 8)).astype(np.float32)
    assert "fewer than 4096" in Prune()(model_of("y = MatMul(x, w)", w)).refusals[0].reason
    w[:4] = 0
    assert "already 50% sparse" in HALF(model_of("y = MatMul(x, w)", w)).refusals[0].reason
    w[7, 7] = np.nan
    assert "NaN" in Prune(Pattern(1, 4), min_size=1)(model_of("y = MatMul(x, w)", w)).refusals[0].reason


def test_options():
    found = Prune.from_options({"pattern": "16:64"})
    assert found == Prune(Pattern(16, 64))
    assert str(found) == "prune{pattern=16:64}"
    assert str(Prune()) == "prune"
    for options in ({"pattern": "unstructured"}, {"sparsity": "0.9"}, {"pattern": "4:2"}, {"pattern": "x"}):
        with pytest.raises(UsageError):
            Prune.from_options(options)
