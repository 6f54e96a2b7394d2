import numpy as np
import onnx_ir as ir
import pytest

from sparsify import graph
from sparsify.graph import Linear, Unsupported, find_linear


def model_of(
    body: str, inits: str = "float[4,3] w = {1,2,3,4,5,6,7,8,9,10,11,12}", x: str = "float[M,4] x"
) -> ir.Model:
    return ir.from_onnx_text(f"""<ir_version: 8, opset_import: ["" : 17]>
        g ({x}) => (float[M,N] y) <{inits}> {{ {body} }}""")


def last(model: ir.Model) -> Linear | Unsupported | None:
    return find_linear(model.graph[-1])


@pytest.mark.parametrize(
    ("body", "transposed"),
    [
        ("y = MatMul(x, w)", False),
        ("v = Identity(w) u = Identity(v) y = MatMul(x, u)", False),
        ("c = Constant<value = float[4,3] {1,2,3,4,5,6,7,8,9,10,11,12}>() y = MatMul(x, c)", False),
        ("t = Constant<value = float[3,4] {1,4,7,10,2,5,8,11,3,6,9,12}>() w2 = Transpose(t) y = MatMul(x, w2)", True),
        ("t = Transpose<perm=[1,0]>(w) u = Transpose(t) y = MatMul(x, u)", False),
        ("t = Transpose(w) y = Gemm<transB=1>(x, t)", False),
        ("y = Gemm(x, w)", False),
    ],
)
def test_finds_the_constant_weight(body, transposed):
    layer = last(model_of(body))
    assert isinstance(layer, Linear)
    assert layer.shape == (4, 3)
    assert layer.transposed is transposed
    assert layer.matrix().tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]]


@pytest.mark.parametrize(
    ("body", "inits", "x", "reason"),
    [
        ("y = MatMul(w, x)", "float[4,4] w", "float[4,N] x", "on the left"),
        ("y = MatMul(x, w)", "float[2,4,3] w", "float[2,M,4] x", "rank 3"),
        ("y = MatMul(x, w)", "float[4] w", "float[M,4] x", "rank 1"),
        ("y = MatMul(x, w)", "double[4,3] w", "double[M,4] x", "DOUBLE"),
        ("y = MatMul(x, w)", "float[0,3] w", "float[M,0] x", "empty"),
        ("y = MatMul(x, w)", "float[1,1] w", "float[M,1] x", "scalar"),
        ("y = MatMul(x, w)", "float[4,3] w", "float[4] x", "activations have rank 1"),
        ("y = MatMul(x, x)", "float[4,3] w", "float[4,4] x", "neither operand is a constant"),
        ("r = Relu(x) y = MatMul(x, r)", "float[4,3] w", "float[4,4] x", "made by Relu"),
        ("y = MatMul(x, w)", "float[4,3] w", "float[M,4] x, float[4,3] w", "callers may override"),
        ("y = MatMul(x, v)", "float[4,3] w", "float[M,4] x, float[4,3] v", "`v` is an input"),
        ("v = Identity(w) y = MatMul(v, w)", "float[4,4] w", "float[M,4] x", "both operands"),
    ],
)
def test_says_why_it_is_no_linear_layer(body, inits, x, reason):
    names = dict(part.split()[::-1] for part in inits.split(", "))
    model = model_of(body, "", x)
    for name, kind in names.items():
        shape = [int(d) for d in kind[kind.index("[") + 1 : -1].split(",")]
        array = np.ones(shape, np.float64 if "double" in kind else np.float32)
        value = next((v for v in model.graph.inputs if v.name == name), None)
        users = [(n, i) for n in model.graph for i, v in enumerate(n.inputs) if v is not None and v.name == name]
        if value is None:
            value = graph.add_initializer(model.graph, array, name, set())
        else:
            value.const_value = ir.tensor(array, name=name)
            model.graph.register_initializer(value)
        for node, index in users:
            node.replace_input_with(index, value)
    found = last(model)
    assert isinstance(found, Unsupported)
    assert reason in found.reason


def test_reads_every_attribute_of_gemm():
    model = model_of(
        "y = Gemm<transA=1, transB=1, alpha=0.5, beta=2.0>(x, w, c)",
        "float[3,4] w = {1,2,3,4,5,6,7,8,9,10,11,12}, float[3] c = {1,2,3}",
        "float[4,M] x",
    )
    layer = last(model)
    assert isinstance(layer, Linear)
    assert (layer.shape, layer.transposed, layer.transposed_x, layer.alpha, layer.beta) == ((4, 3), True, True, 0.5, 2)
    assert layer.bias_vector().tolist() == [2, 4, 6]


@pytest.mark.parametrize(
    ("c", "expected"),
    [
        ("float c = {2}", [2, 2, 2]),
        ("float[1] c = {2}", [2, 2, 2]),
        ("float[1,1] c = {2}", [2, 2, 2]),
        ("float[1,3] c = {1,2,3}", [1, 2, 3]),
        ("float[2,1] c = {1,2}", None),
        ("float[2,3] c = {1,2,3,4,5,6}", None),
    ],
)
def test_bias_vector_is_what_all_rows_share(c, expected):
    layer = last(model_of("y = Gemm(x, w, c)", f"float[4,3] w = {{1,2,3,4,5,6,7,8,9,10,11,12}}, {c}"))
    found = layer.bias_vector()
    assert (None if found is None else found.tolist()) == expected


def test_beta_of_zero_means_no_bias():
    model = model_of("y = Gemm<beta=0.0>(x, w, c)", x="float[M,4] x, float[3] c")
    assert last(model).bias is None


def test_nodes_visits_subgraphs_and_functions():
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17, "f" : 1]>
        g (float[M,4] x, bool c) => (float[M,4] y) { y = If(c) <
            then_branch = t () => (float[M,4] a) { a = Relu(x) }, else_branch = e () => (float[M,4] b) { b = f.h(x) }> }
        <domain: "f", opset_import: ["" : 17]> h (x) => (y) { y = Tanh(x) }""")
    assert [n.op_type for n in graph.nodes(model)] == ["If", "Relu", "h", "Tanh"]


def test_unnamed_nodes_are_called_by_their_output():
    model = model_of("y = MatMul(x, w)")
    assert last(model).name == "MatMul -> y"
    model.graph[-1].name = "dense"
    assert last(model).name == "dense"


def test_external_data_is_read_only_when_asked_for(tmp_path):
    model = model_of("y = MatMul(x, w)")
    ir.save(model, tmp_path / "m.onnx", external_data="m.data", size_threshold_bytes=0)
    loaded = ir.load(tmp_path / "m.onnx")
    (tmp_path / "m.data").rename(tmp_path / "away")
    layer = last(loaded)
    assert layer.shape == (4, 3)
    with pytest.raises(FileNotFoundError):
        layer.matrix()
    (tmp_path / "away").rename(tmp_path / "m.data")
    assert layer.matrix().sum() == 78


def test_fresh_names_are_taken_from_subgraphs_too():
    model = model_of("y = MatMul(x, w)")
    taken = graph.names(model)
    assert taken == {"x", "w", "y"}
    assert [graph.fresh_name(taken, "w") for _ in range(2)] == ["w_1", "w_2"]
    assert graph.fresh_name(model.graph, "w") == "w_1"


def test_drop_unused_follows_the_chain_and_spares_what_is_read():
    model = model_of("v = Identity(w) u = Transpose(v) t = Transpose(u) y = MatMul(x, t) ")
    graph.set_input(model.graph[-1], 1, graph.add_initializer(model.graph, np.ones((4, 3), np.float32), "n", set()))
    assert [n.op_type for n in model.graph] == ["MatMul"]
    assert list(model.graph.initializers) == ["n"]
    model = model_of("v = Identity(w) y = MatMul(x, w)")
    graph.drop_unused(model.graph.initializers["w"])
    assert list(model.graph.initializers) == ["w"]


def test_a_product_without_a_second_operand_is_no_layer():
    x = ir.val("x", ir.DataType.FLOAT, [2, 2])
    found = find_linear(ir.Node("", "MatMul", [x]))
    assert isinstance(found, Unsupported)
    assert "missing" in found.reason
