import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsify.passes.shrink import Shrink
from sparsify.passes.sparse_fp32 import SparseFp32
from tests.running import EPS, difference_bound, op_types, run, set_constant

H = 12
_HIDDEN = {
    "": lambda v: v,
    "Relu": lambda v: np.maximum(v, 0),
    "Tanh": np.tanh,
    "Sigmoid": lambda v: 1 / (1 + np.exp(-v)),
}


def mlp(
    first: str, activation: str, second: str, arrays: dict[str, np.ndarray], outputs: str = "float[M,3] y"
) -> ir.Model:
    middle = f"f = {activation}(h)" if activation else "f = Identity(h)"
    model = ir.from_onnx_text(f"""<ir_version: 8, opset_import: ["" : 17]> g (float[M,5] x) => ({outputs})
        <float[1,1] w1 = {{0}}, float[1,1] w2 = {{0}}, float[1] b1 = {{0}}, float[1] b2 = {{0}}>
        {{ {first} {middle} {second} }}""")
    for name, array in arrays.items():
        set_constant(model, name, array)
    return model


def arrays_of(rng, idle: int = 4) -> dict[str, np.ndarray]:
    made = {"w1": (5, H), "b1": (H,), "w2": (H, 3), "b2": (3,)}
    arrays = {k: rng.standard_normal(s).astype(np.float32) for k, s in made.items()}
    arrays["w1"][:, :idle] = 0  # constant units
    arrays["w2"][idle : 2 * idle] = 0  # unread units
    return arrays


@pytest.mark.parametrize("activation", _HIDDEN)
@pytest.mark.parametrize("first", ["p = MatMul(x, w1) h = Add(b1, p)", "h = Gemm(x, w1, b1)"])
@pytest.mark.parametrize("second", ["y = MatMul(f, w2)", "q = MatMul(f, w2) y = Add(q, b2)", "y = Gemm(f, w2, b2)"])
def test_removes_idle_units_and_keeps_the_output(rng, first, activation, second):
    arrays = arrays_of(rng)
    model = mlp(first, activation, second, arrays)
    x = rng.standard_normal((4, 5)).astype(np.float32)
    expected = run(model, x=x)[0]
    report = Shrink()(model)
    assert [c.facts["shape"] for c in report.changes] == [[5, 4], [4, 3]]
    assert report.modified
    hidden = _HIDDEN[activation](x @ arrays["w1"] + arrays["b1"])
    # Hidden units are off by their own product's bound (all f here have slopes up to 1) and a few ulp of f.
    off = difference_bound(x, arrays["w1"], arrays["b1"]) + 8 * EPS
    bound = difference_bound(hidden, arrays["w2"], arrays["b2"]) + off @ np.abs(arrays["w2"])
    assert (np.abs(run(model, x=x)[0] - expected) <= bound).all()
    again = Shrink()(model)
    assert not again.modified
    assert "no hidden unit is idle" in again.refusals[0].reason


def test_transposed_weights_and_factors(rng):
    arrays = arrays_of(rng)
    arrays["w1"], arrays["w2"] = arrays["w1"].T.copy(), arrays["w2"].T.copy()
    first = "h = Gemm<transB=1, alpha=2.0, beta=0.5>(x, w1, b1)"
    model = mlp(first, "Relu", "y = Gemm<transB=1, alpha=0.5, beta=2.0>(f, w2, b2)", arrays)
    x = rng.standard_normal((4, 5)).astype(np.float32)
    expected = run(model, x=x)[0]
    assert Shrink()(model).modified
    hidden = np.maximum(2 * x @ arrays["w1"].T + 0.5 * arrays["b1"], 0)
    off = difference_bound(x, 2 * arrays["w1"].T, 0.5 * arrays["b1"])
    bound = difference_bound(hidden, 0.5 * arrays["w2"].T, 2 * arrays["b2"]) + off @ np.abs(0.5 * arrays["w2"].T)
    assert (np.abs(run(model, x=x)[0] - expected) <= bound).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.booleans(), min_size=H, max_size=H), st.lists(st.booleans(), min_size=H, max_size=H))
def test_counts_what_it_removes(unread, fixed):
    arrays = arrays_of(np.random.default_rng(1), idle=0)
    arrays["w1"][:, fixed] = 0
    arrays["w2"][unread] = 0
    model = mlp("h = Gemm(x, w1, b1)", "Tanh", "y = Gemm(f, w2, b2)", arrays)
    idle = int((np.array(unread) | np.array(fixed)).sum())
    report = Shrink()(model)
    assert report.modified is (idle > 0)
    if idle:
        assert report.changes[0].facts["shape"] == [5, max(H - idle, 1)]
        run(model, x=np.zeros((1, 5), np.float32))


def test_rows_that_go_empty_the_columns_before(rng):
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]> g (float[M,4] x) => (float[M,4] y)
        <float[1,1] u = {0}, float[1,1] v = {0}, float[1,1] w = {0}>
        { a = MatMul(x, u) b = Relu(a) c = MatMul(b, v) d = Relu(c) y = MatMul(d, w) }""")
    u, v, w = (rng.standard_normal((4, 4)).astype(np.float32) for _ in range(3))
    w[2:] = 0
    v[1, :2] = 0  # row 1 of v is read by columns 2 and 3 alone, which go
    for name, array in (("u", u), ("v", v), ("w", w)):
        set_constant(model, name, array)
    x = rng.standard_normal((3, 4)).astype(np.float32)
    expected = run(model, x=x)[0]
    report = Shrink()(model)
    assert [c.facts["shape"] for c in report.changes] == [[4, 3], [3, 2], [2, 4]]
    first = difference_bound(x, u)
    second = difference_bound(np.abs(x) @ np.abs(u), v) + first @ np.abs(v)
    bound = difference_bound(np.abs(x) @ np.abs(u) @ np.abs(v), w) + second @ np.abs(w)
    assert (np.abs(run(model, x=x)[0] - expected) <= bound).all()


@pytest.mark.parametrize(
    ("first", "activation", "second", "outputs", "reason"),
    [
        ("h = Gemm(x, w1, b1)", "Softmax", "y = Gemm(f, w2, b2)", "float[M,3] y", "read by Softmax"),
        ("h = Gemm(x, w1, b1)", "Relu", "y = Gemm(f, w2, b2)", "float[M,3] y, float[M,12] h", "an output of the model"),
        ("h = Gemm(x, w1, b1)", "Relu", "y = Gemm(f, w2, b2)", "float[M,3] y, float[12,3] w2", "has other users"),
        (
            "h = Gemm(x, w1, b1)",
            "Relu",
            "q = Gemm(f, w2, b2) r = ReduceSum(h) y = Add(q, r)",
            "float[M,3] y",
            "read by",
        ),
        ("h = Gemm(x, w1, b1)", "Relu", "y = Gemm<transA=1>(f, w2)", "float[M,3] y", "reads its output transposed"),
    ],
)
def test_refuses_what_it_cannot_follow(rng, first, activation, second, outputs, reason):
    arrays = arrays_of(rng)
    model = mlp(first, activation, second, arrays, outputs)
    report = Shrink()(model)
    assert not report.modified
    assert reason in report.refusals[0].reason


def test_a_bias_multiplied_by_zero_does_not_get_in_the_way(rng):
    model = mlp("h = Gemm<beta=0.0>(x, w1, b1)", "Relu", "y = MatMul(f, w2)", arrays_of(rng))
    assert Shrink()(model).modified
    assert run(model, x=np.zeros((2, 5), np.float32))[0].tolist() == [[0, 0, 0]] * 2


def test_what_constant_units_gave_is_added_where_there_was_no_bias(rng):
    model = mlp("h = Gemm(x, w1, b1)", "Tanh", "y = MatMul(f, w2)", arrays_of(rng))
    Shrink()(model)
    assert op_types(model) == ["Gemm", "Tanh", "MatMul", "Add"]
    assert model.graph.outputs[0].name == "y"


def test_what_a_later_pass_adds_has_another_name():
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[M,2] x, float[2] c) => (float[M,2] y)
        <float[2,2] w1 = {1, 0, 2, 0}, float[2] b1 = {1, 3}, float[2,2] w2 = {1, 2, 3, 4}> {
          h = MatMul(x, w1)  a = Add(h, b1)  y = Gemm(a, w2, c) }""")
    feed = {"x": np.array([[1, 2], [3, 4]], np.float32), "c": np.array([5, 6], np.float32)}
    expected = run(model, **feed)[0]
    assert Shrink()(model).modified  # its second unit is 3, whatever x: an Add
    assert SparseFp32(min_sparsity=0.0)(model).modified  # c is not constant: another
    added = [node.name for node in model.graph if node.op_type == "Add"]
    assert len(set(added)) == len(added) > 1
    assert (run(model, **feed)[0] == expected).all()  # small integers: exact in any order
