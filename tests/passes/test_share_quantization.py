import numpy as np
import onnx_ir as ir
import pytest

from sparsify import cost, kernels, ops
from sparsify.audit import audit
from sparsify.audit.bisection import bisect
from sparsify.budget import parse as budget
from sparsify.passes.fuse_epilogue import FuseEpilogue
from sparsify.passes.share_quantization import ShareQuantization
from sparsify.passes.sparse_int8 import SparseInt8
from sparsify.shapes import shapes
from tests.onemodel import session
from tests.running import op_types, run, set_constant, sparse

SHARE = ShareQuantization(measure=False)
HEADS = "q = MatMul(x, wq) k = MatMul(x, wk) r = Relu(k) y = Mul(q, r)"


def model_of(rng, body: str = HEADS, weights: str = "wq wk", outputs: str = "float[M,6] y") -> ir.Model:
    """W [8, 6], half of it zeros, for each name in `weights`; x [M, 8] and z [M, 8] go in."""
    constants = ", ".join(f"float[1,1] {name} = {{0}}" for name in weights.split())
    model = ir.from_onnx_text(f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[M,8] x, float[M,8] z, bool which) => ({outputs}) <{constants}> {{ {body} }}""")
    for name in weights.split():
        set_constant(model, name, sparse(rng, 8, 6, 0.5))
    SparseInt8()(model)
    FuseEpilogue()(model)
    return model


def feed(rng) -> dict[str, np.ndarray]:
    x, z = rng.standard_normal((2, 5, 8)).astype(np.float32)
    x[2, 3] = np.inf
    return {"x": x, "z": z, "which": np.array(True)}


def outputs(model: ir.Model, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Of the functions in the model and, where there are kernels, of these."""
    found = run(model, **given)
    if kernels.isa() not in (None, "scalar"):
        found += session(ir.to_proto(model), native=True).run(None, given)
    return found


def test_readers_of_one_activation_share_its_rows(rng):
    model = model_of(rng)
    given = feed(rng)
    before = outputs(model, given)
    report = SHARE(model)
    assert op_types(model) == [ops.QUANTIZE, "SparseMatMulInteger", "SparseMatMulIntegerRelu", "Mul"]
    assert [c.node for c in report.changes] == ["MatMul -> q", "MatMul -> k"]
    assert {c.what for c in report.changes} == {"shares the quantised rows of `x`"}
    for old, new in zip(before, outputs(model, given), strict=True):
        assert np.array_equal(old, new, equal_nan=True)
    assert not SHARE(model).modified


def test_names_and_what_is_known_of_a_node_are_kept(rng):
    model = model_of(rng)
    model.graph[0].meta["rows"] = 40
    model.graph[0].metadata_props["who"] = "query"
    SHARE(model)
    node = model.graph[1]
    assert (node.name, node.meta["rows"], node.metadata_props["who"]) == ("MatMul -> q", 40, "query")
    assert [v.name for v in node.inputs[:3]] == ["x/q", "x/scale", "x/zero_point"]
    assert [v.dtype for v in node.inputs[:3]] == [ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8]


def test_activations_are_kept_apart(rng):
    body = "a = MatMul(x, w0) b = MatMul(z, w1) c = MatMul(z, w2) d = MatMul(x, w3) y = Sum(a, b, c, d)"
    model = model_of(rng, body, "w0 w1 w2 w3")
    given = feed(rng)
    before = outputs(model, given)
    assert len(SHARE(model).changes) == 4
    assert op_types(model).count(ops.QUANTIZE) == 2
    reads = [node.inputs[0].name for node in model.graph if node.op_type == "SparseMatMulInteger"]
    assert reads == ["x/q", "z/q", "z/q", "x/q"]
    for old, new in zip(before, outputs(model, given), strict=True):
        assert np.array_equal(old, new, equal_nan=True)


def test_a_residual_stays_the_last_input(rng):
    model = model_of(rng, "q = MatMul(x, wq) k = MatMul(x, wk) y = Add(k, q)")
    assert op_types(model) == ["SparseMatMulInt8", "SparseMatMulInt8Add"]
    given = feed(rng)
    before = outputs(model, given)
    SHARE(model)
    assert op_types(model) == [ops.QUANTIZE, "SparseMatMulInteger", "SparseMatMulIntegerAdd"]
    for old, new in zip(before, outputs(model, given), strict=True):
        assert np.array_equal(old, new, equal_nan=True)


def test_a_single_reader_is_left(rng):
    model = model_of(rng, "y = MatMul(x, wq) r = Relu(x)", "wq")
    report = SHARE(model)
    assert not report.modified
    assert [r.reason for r in report.refusals] == ["no other int8 operator reads `x`"]
    assert op_types(model) == ["SparseMatMulInt8", "Relu"]


def test_only_operators_of_one_graph_share(rng):
    body = """a = MatMul(x, w0) t = If(which) <
        then_branch = yes () => (float[M,6] b) { b = MatMul(x, w1) },
        else_branch = no () => (float[M,6] e) { c = MatMul(x, w2) d = MatMul(x, w3) e = Add(c, d) }> y = Add(a, t)"""
    model = model_of(rng, body, "w0 w1 w2 w3")
    given = feed(rng) | {"which": np.array(False)}
    before = outputs(model, given)
    report = SHARE(model)
    assert sorted(c.node for c in report.changes) == ["MatMul -> c", "MatMul -> d"]
    assert len(report.refusals) == 2
    for old, new in zip(before, outputs(model, given), strict=True):
        assert np.array_equal(old, new, equal_nan=True)


def test_shapes_are_those_of_what_was_quantised(rng):
    model = model_of(rng)
    before = shapes(model)
    SHARE(model)
    assert {name: shapes(model)[name] for name in ("q", "r", "y")} == {name: before[name] for name in ("q", "r", "y")}


@pytest.mark.parametrize(("shared", "gains"), [(0.5, True), (1.0, False), (1.5, False)])
def test_what_gains_nothing_is_refused_with_what_was_measured(rng, monkeypatch, shared, gains):
    asked = []

    def measure_sharing(k, readers, *, rows, threads):
        asked.append((k, readers, rows, threads))
        return cost.Cost(dense_ms=1.0, rewritten_ms=shared)

    monkeypatch.setattr(cost, "measure_sharing", measure_sharing)
    model = model_of(rng)
    report = ShareQuantization(rows=7, threads=2)(model)
    assert report.modified == gains
    assert asked == [(8, 2, 7, 2)]
    if not gains:
        assert {r.reason for r in report.refusals} == {
            f"with 7 rows of `x` it gains nothing: 2 products of few columns take {1000 * shared:.1f} us, "
            "and 1000.0 us where each quantises"
        }


def test_rows_that_leave_the_cache_are_refused_unmeasured(rng, monkeypatch):
    monkeypatch.setattr(cost, "measure_sharing", None)
    model = model_of(rng)
    model.graph[0].meta["rows"] = 10**8
    (reason,) = {r.reason for r in ShareQuantization()(model).refusals}
    assert reason.startswith("100000000 rows of `x` take more than")
    assert SHARE(model).modified


def test_rows_that_were_observed_are_measured_with(rng, monkeypatch):
    seen = []
    one = cost.Cost(1.0, 1.0)
    monkeypatch.setattr(cost, "measure_sharing", lambda k, readers, *, rows, threads: seen.append(rows) or one)
    model = model_of(rng)
    model.graph[0].meta["rows"] = 40
    ShareQuantization()(model)
    assert seen == [40]


def test_a_bisection_finds_the_guilty_one_among_those_that_share(rng):
    body = "q = MatMul(x, wq) k = MatMul(x, wk) y = Sigmoid(q) t = Tanh(k)"
    base = model_of(rng, body, outputs="float[M,6] y, float[M,6] t")
    candidate = base.clone()
    SHARE(candidate)
    feeds = [{n: v for n, v in feed(np.random.default_rng(seed)).items() if n == "x"} for seed in range(3)]
    for one in feeds:
        one["x"][2, 3] = 1
    base_proto, candidate_proto = ir.to_proto(base), ir.to_proto(candidate)
    for proto in (base_proto, candidate_proto):
        del proto.graph.input[1:]
    assert audit(base_proto, candidate_proto, feeds).outputs["y"].metrics["max_abs"].value == 0
    scale = next(t for t in candidate_proto.graph.initializer if t.name == "wk.scale")
    scale.raw_data = (np.frombuffer(scale.raw_data, np.float32) * np.float32(3)).tobytes()
    found = bisect(base_proto, candidate_proto, feeds, [budget("relative_l2<=0.01")])
    assert [[u.nodes[-1] for u in one.units] for one in found.guilty] == [["MatMul -> k"]]
