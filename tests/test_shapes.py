import onnx
import onnx_ir as ir
import pytest

from sparsify.passes.sparse_fp32 import SparseFp32
from sparsify.shapes import shapes
from tests.running import set_constant, sparse


def shapes_of(body: str, inputs: str, outputs: str = "y") -> dict[str, object]:
    model = ir.from_onnx_text(f"""<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g ({inputs}) => (float {outputs}) <float[1,4,6] w = {{{",".join("0" * 24)}}}, int64[1] zero = {{0}}>
        {{ {body} }}""")
    for value in model.graph.outputs:
        value.shape = None
    return shapes(model)


def test_symbols_and_numbers():
    found = shapes_of("y = Transpose<perm=[1,0]>(a)", "float[N,3] a")
    assert found["a"] == (frozenset("N"), 3)
    assert found["y"] == (3, frozenset("N"))


@pytest.mark.parametrize(
    ("body", "same"),
    [
        ("p = Add(a, b) q = Add(b, a) y = Mul(p, q)", ("p", "y")),  # commutative, idempotent
        ("p = Add(a, b) q = Add(p, c) r = Add(b, c) y = Add(a, r)", ("q", "y")),  # associative
        ("p = Add(a, b) q = Sub(p, a) y = Where(t, q, b)", ("p", "q")),
        ("p = Add(a, b) y = Relu(p)", ("p", "y")),
    ],
)
def test_broadcasting_is_a_union(body, same):
    found = shapes_of(body, "float[B,4] a, float[C,4] b, float[D,4] c, bool[1,4] t")
    assert found[same[0]] == found[same[1]]


@pytest.mark.parametrize("body", ["y = Add(a, b)", "y = Mul(b, c)", "p = Add(b, c) y = Add(p, p)"])
def test_what_may_be_broadcast_is_another_shape(body):
    found = shapes_of(body, "float[B,4] a, float[C,4] b, float[D,4] c")
    assert found["y"] not in (found["a"], found["b"], found["c"])


def test_a_batched_matmul_broadcasts_its_batch():
    found = shapes_of("p = MatMul(a, b) y = Add(p, c)", "float[B,T,4] a, float[C,4,S] b, float[B,T,S] c")
    assert found["p"] == (frozenset("BC"), frozenset("T"), frozenset("S"))
    assert found["y"] == found["p"]


def test_a_reshape_by_a_shape_keeps_what_it_keeps():
    body = "p = MatMul(a, w) s = Shape(p) b = Gather(s, zero) n = Constant<value = int64[2] {-1, 6}>() "
    found = shapes_of(body + "t = Concat<axis=0>(b, n) y = Reshape(p, t)", "float[B,T,4] a")
    assert found["p"] == (frozenset("B"), frozenset("T"), 6)
    assert found["y"][0] == frozenset("B")
    assert found["y"][2] == 6


def test_unknown_dimensions_are_equal_to_themselves_only():
    found = shapes_of("p = NonZero(a) q = NonZero(b) r = Add(p, q) y = Cast<to=1>(r)", "float[N,4] a, float[N,4] b")
    assert found["p"][0] == 2
    assert found["p"][1] != found["q"][1]
    assert found["y"][1] == found["p"][1] | found["q"][1]


@pytest.mark.skipif(onnx.__version__.startswith("1.16."), reason="onnx 1.16 infers nothing beside an unknown operator")
def test_an_unknown_operator_hides_its_shape_and_no_other():
    found = shapes_of("p = com.microsoft.Gelu(a) q = Relu(a) y = Add(p, q)", "float[N,4] a")
    assert "p" not in found
    assert found["q"] == found["a"]
    assert found.get("y") != found["a"]


@pytest.mark.parametrize("outputs", ["float[M,6] y", "float[M,6] y, float[M,6] p"])
def test_our_operators_are_products_and_the_model_stays(rng, outputs):
    model = ir.from_onnx_text(f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[M,8] a) => ({outputs}) <float[1,1] w = {{0}}> {{ p = MatMul(a, w) y = Relu(p) }}""")
    set_constant(model, "w", sparse(rng, 8, 6, 0.4))
    SparseFp32(min_sparsity=0)(model)
    before = ir.to_proto(model).SerializeToString()
    assert shapes(model)["p"] == (frozenset("M"), 6)
    assert ir.to_proto(model).SerializeToString() == before


def test_constants_tell_shapes_whatever_their_tensors_are_called():
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,4] a) => (float y) <int64[2] s = {-1, 2}> { p = Reshape(a, s) y = Relu(p) }""")
    model.graph.outputs[0].shape = None
    model.graph.initializers["s"].const_value = ir.tensor([-1, 2], ir.DataType.INT64, name="another")
    assert shapes(model)["p"][1] == 2


def test_a_model_that_contradicts_itself_tells_nothing():
    assert shapes_of("y = MatMul(a, b)", "float[2,3] a, float[4,5] b").get("y") is None
