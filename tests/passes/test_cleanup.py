import numpy as np
import onnx
import onnx_ir as ir
import pytest

from sparsify.passes.cleanup import Cleanup
from sparsify.passes.prune import Prune
from sparsify.passes.sparse_fp32 import SparseFp32
from sparsify.passes.sparse_int8 import SparseInt8
from sparsify.patterns import Pattern
from tests.running import op_types, run, set_constant

BODY = """{ k = Constant<value = float[2] {1, 2}>() s = Add(k, k2) i = Identity(x) a = Mul(i, s) b = Mul(x, s)
    unused = Relu(x) y = Add(a, b) }"""


def model_of(
    body: str = BODY, outputs: str = "float[M,2] y", version: int = 8, inputs: str = "float[M,2] x"
) -> ir.Model:
    return ir.from_onnx_text(f"""<ir_version: {version}, opset_import: ["" : 17]> g ({inputs}) => ({outputs})
        <float[2] k2 = {{3, 4}}> {body}""")


def test_folds_merges_and_removes():
    model = model_of()
    x = np.array([[1, 2], [3, 4]], np.float32)
    expected = run(model, x=x)[0]
    report = Cleanup()(model)
    assert report.modified
    assert op_types(model) == ["Mul", "Add"]
    assert (run(model, x=x)[0] == expected).all()  # small integers: exact in any order
    assert not Cleanup()(model).modified


def test_an_output_that_a_node_like_another_makes_keeps_its_type():
    model = model_of("{ a = Relu(x) b = Relu(x) c = Neg(a) }", outputs="float[M,2] b, float[M,2] c")
    Cleanup()(model)
    assert op_types(model) == ["Relu", "Neg"]
    onnx.checker.check_model(ir.to_proto(model))


def test_a_clean_model_comes_back_byte_by_byte():
    model = model_of("{ a = Mul(x, k2) y = Relu(a) }")
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    assert not Cleanup()(model).modified
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_does_not_blow_up():
    model = model_of(
        "{ n = Constant<value = int64[2] {400, 2}>() e = Expand(k2, n) y = Mul(x, e) }", inputs="float[400,2] x"
    )
    Cleanup(fold_limit=100)(model)
    assert "Expand" in op_types(model)
    Cleanup()(model)
    assert "Expand" not in op_types(model)


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("{ y = Relu(x) z = Identity(y) }", "float[M,2] y, float[M,2] z"),
        ("{ y = Relu(x) z = Relu(x) }", "float[M,2] y, float[M,2] z"),
        ("{ y = Relu(x) z = Relu(x) }", "float[M,2] y, float[M,2] z, float[M,2] z"),
        ("{ y = Relu(x) z = Identity(y) }", "float[M,2] z, float[M,2] z"),
        ("{ y = Identity(x) z = Identity(k2) }", "float[M,2] y, float[2] z"),
        ("{ y = Relu(x) z = Add(k2, k2) }", "float[M,2] y, float[2] z"),
    ],
)
def test_outputs_keep_their_names_and_values(body, outputs):
    model = model_of(body, outputs)
    names = [v.name for v in model.graph.outputs]
    x = np.array([[1, -2]], np.float32)
    expected = run(model, x=x)
    Cleanup()(model)
    assert [v.name for v in model.graph.inputs] == ["x"]
    assert [v.name for v in model.graph.outputs] == names
    assert all((a == b).all() for a, b in zip(run(model, x=x), expected, strict=True))


@pytest.mark.parametrize("body", ["{ y = Identity(x) }", "{ i = Identity(x) z = Relu(i) y = Identity(z) }"])
def test_an_identity_of_one_batch_does_not_narrow_the_input(body):
    model = model_of(body, "float[1,2] y")
    for node in model.graph:
        node.outputs[0].shape = ir.Shape([1, 2])
    Cleanup()(model)
    assert str(model.graph.inputs[0].shape) == "[M,2]"
    assert str(model.graph.outputs[0].shape) == "[1,2]"


def test_a_subgraph_that_returns_an_outer_value_still_does():
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (bool c, float[M,2] x) => (float[M,2] y) { r = Relu(x) y = If(c) <
            then_branch = t () => (float[M,2] a) { a = Identity(r) },
            else_branch = e () => (float[M,2] b) { b = Neg(r) }> }""")
    report = Cleanup()(model)
    assert any("outer scope" in r.reason for r in report.refusals)
    x = np.array([[1, -2]], np.float32)
    assert run(model, c=np.array(True), x=x)[0].tolist() == [[1, 0]]


def test_random_operators_are_neither_folded_nor_merged():
    model = model_of("{ p = Bernoulli(k2) q = Bernoulli(k2) r = Add(p, q) y = Add(x, r) }")
    report = Cleanup()(model)
    assert op_types(model).count("Bernoulli") == 2
    assert any("Bernoulli" in r.reason for r in report.refusals)


def test_weights_of_old_models_become_constants():
    model = ir.from_onnx_text("""<ir_version: 3, opset_import: ["" : 11]>
        g (float[M,2] x, float[2,2] w) => (float[M,2] y) <float[2,2] w = {1, 2, 3, 4}> { y = MatMul(x, w) }""")
    assert not Prune(Pattern(1, 2), min_size=1)(model).modified
    assert Cleanup()(model).modified
    assert model.ir_version == 4  # no higher than that needs
    assert [v.name for v in model.graph.inputs] == ["x"]
    assert Prune(Pattern(1, 2), min_size=1)(model).modified


@pytest.mark.parametrize("lower", [SparseFp32(min_sparsity=0), SparseInt8()])
def test_after_lowering_the_model_still_runs(rng, lower):
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]> g (float[M,8] x) => (float[M,4] y)
        <float[1,1] w = {0}> { y = MatMul(x, w) }""")
    set_constant(model, "w", rng.standard_normal((8, 4)).astype(np.float32))
    lower(model)
    x = rng.standard_normal((3, 8)).astype(np.float32)
    expected = run(model, x=x)[0]
    Cleanup()(model)
    # Folding rewrites the constants of the functions, not the order of their sums.
    assert (run(model, x=x)[0] == expected).all()


def test_says_nothing_on_the_side(caplog):
    Cleanup()(model_of("{ a = Mul(x, k2) y = Identity(a) z = Identity(k2) }", "float[M,2] y, float[2] k2, float[2] z"))
    assert not caplog.records


def test_unused_functions_go():
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17, "f" : 1]>
        g (float[M,4] x) => (float[M,4] y) { u = f.h(x) y = Relu(x) }
        <domain: "f", opset_import: ["" : 17]> h (x) => (y) { y = Tanh(x) }""")
    assert Cleanup()(model).modified
    assert not model.functions


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("k = Constant<value_strings = ['a', 'b']>() t = Identity(k)", "2"),
        (
            "k = Constant<value = string[2] {'a', 'b'}>() s = Constant<value = int64[2] {2, 1}>() t = Reshape(k, s)",
            "2,1",
        ),
        ("k = Constant<value = string[2] {'a', 'b'}>() t = Concat<axis = 0>(k, k)", "4"),
        ("t = Cast<to = 8>(k2)", "2"),
    ],
)
def test_constant_strings_stay_what_they_are(body, shape):
    model = model_of("{" + body.replace("'", '"') + " y = Relu(x) }", f"float[M,2] y, string[{shape}] t")
    x = np.array([[1, -2]], np.float32)
    expected = run(model, x=x)[1]
    Cleanup()(model)
    assert run(model, x=x)[1].tolist() == expected.tolist()


def test_what_lacks_its_operand_is_left_to_the_runtime_to_refuse():
    model = model_of("{ t = Transpose() y = Relu(x) }", "float[M,2] y, float[2,2] t")
    next(n for n in model.graph if n.op_type == "Transpose").resize_inputs(1)
    Cleanup()(model)
    assert op_types(model) == ["Transpose", "Relu"]
