"""Sparse initializers as weights: taken as they are, never made dense where that is large, written as they came."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import scipy.sparse
from onnx.numpy_helper import from_array

import sparsify
from sparsify import modelio, runtime
from sparsify.errors import InputError
from sparsify.passes.detect import Detect
from sparsify.passes.sparse_fp32 import SparseFp32
from tests.coverage.exact import rows

K, N, NNZ = 70_000, 40_000, 100_000  # 11 GB when dense


def huge(*, linear: bool, layer: str, seed: int = 0) -> tuple[onnx.ModelProto, scipy.sparse.csc_array]:
    """y = `layer` of x [M, K] and a weight `w` of small integers, and W [K, N] as the layer uses it."""
    rng = np.random.default_rng(seed)
    flat = np.unique(rng.integers(0, K * N, NNZ))
    values = rng.integers(1, 8, flat.size).astype(np.float32)
    turned = "transB" in layer
    dims = (N, K) if turned else (K, N)
    at = np.divmod(flat, dims[1])
    indices = flat if linear else np.stack(at, axis=1)
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[M,{K}] x) => (float[M,{N}] y) {{ {layer} }}'
    )
    sparse = onnx.helper.make_sparse_tensor(from_array(values, "w"), from_array(indices), dims)
    model.graph.sparse_initializer.append(sparse)
    stored = scipy.sparse.csc_array((values.astype(np.float64), at), shape=dims)
    return model, scipy.sparse.csc_array(stored.T if turned else stored)


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("layer", ["y = MatMul(x, w)", "y = Gemm<transB = 1, alpha = 2.0>(x, w)"])
def test_a_weight_too_large_to_be_dense_is_a_sparse_layer(linear: bool, layer: str) -> None:
    proto, w = huge(linear=linear, layer=layer)
    model = modelio.load(proto)
    (finding,) = Detect()(model).findings
    assert (finding.facts["shape"], finding.facts["bytes"] < 2 * 10**6) == ([K, N], True)
    assert SparseFp32()(model).modified
    x = rows(2, K)
    # Sums of a few products of small integers: exact in fp32, in any order.
    expected = (w.T @ x.T.astype(np.float64)).T * (2 if "alpha" in layer else 1)
    assert (runtime.run(runtime.session(model, threads=1), {"x": x})["y"] == expected).all()


def test_what_no_pass_can_do_with_it_is_said_or_left() -> None:
    proto, _ = huge(linear=True, layer="y = MatMul(x, w)")
    with pytest.raises(InputError, match=r"make the sparse initializer `w` \[70000, 40000\] dense"):
        sparsify.optimize(proto, data={"x": np.zeros((1, K), np.float32)})
    result = sparsify.optimize(proto, passes="cleanup,sparse-int8", threads=1)
    assert not result.changed
    assert "too large to be made dense" in result.report["nodes"][0]["reason"]
    assert list(modelio.to_proto(result.model).graph.sparse_initializer) == list(proto.graph.sparse_initializer)


# A command, then the most memory that it took, KiB. What wait() tells of a child counts its parent's as well.
TELLS = """
import pathlib, re, sys
from sparsify.cli import main
status = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
sys.exit(status)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the most memory that a process took")
def test_a_whole_run_takes_no_more_memory_than_the_model_needs(tmp_path: Path) -> None:
    path, out = tmp_path / "huge.onnx", tmp_path / "out.onnx"
    proto, _ = huge(linear=True, layer="y = MatMul(x, w)")
    onnx.save(proto, path)
    for command in (["inspect", path], ["optimize", path, "-O2", "-o", out, "--threads", "1"]):
        told = subprocess.run([sys.executable, "-c", TELLS, *command], check=True, capture_output=True, text=True)
        # Libraries take 0.3 GB, the dense weight would take 11.
        assert int(told.stdout.splitlines()[-1]) * 1024 < 2**30
    assert onnx.load(out).graph.node[0].op_type == "SparseMatMulColumns"


def test_in_the_body_of_an_if(tmp_path: Path) -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (bool c, float[M,3] x) => (float[M,2] y) {
        y = If(c) <then_branch = t () => (float[M,2] a) { a = MatMul(x, w) },
                   else_branch = e () => (float[M,2] b) <float[3,2] v = {1,2,3,4,5,6}> { b = MatMul(x, v) }> }""")
    branch = next(a.g for a in model.graph.node[0].attribute if a.name == "then_branch")
    values, indices = from_array(np.array([2, 5], np.float32), "w"), from_array(np.array([1, 4], np.int64))
    branch.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [3, 2]))
    modelio.save(modelio.load(model), tmp_path / "out.onnx")
    written = next(a.g for a in onnx.load(tmp_path / "out.onnx").graph.node[0].attribute if a.name == "then_branch")
    assert list(written.sparse_initializer) == list(branch.sparse_initializer)
    lowered = modelio.load(model)
    assert len(SparseFp32(min_sparsity=0.6)(lowered).changes) == 1
    feed = {"c": np.array(True), "x": np.array([[1, 2, 3]], np.float32)}
    # x[0] * 2 in the second column, x[2] * 5 in the first.
    assert runtime.run(runtime.session(lowered, threads=1), feed)["y"].tolist() == [[15, 2]]


def test_a_sparse_constant_becomes_a_sparse_initializer() -> None:
    model, _ = huge(linear=True, layer="y = MatMul(x, w)")
    expected = model.SerializeToString()
    sparse = model.graph.sparse_initializer.pop()
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], sparse_value=sparse))
    assert modelio.serialize(modelio.load(model)) == modelio.serialize(modelio.load(expected))


def test_a_sparse_constant_of_a_function_is_refused() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17, "f" : 1]>
        g (float[M,3] x) => (float[M,3] y) { y = f.h(x) }
        <domain: "f", opset_import: ["" : 17]> h (x) => (y) { y = Add(x, w) }""")
    values, indices = from_array(np.array([2], np.float32), "w"), from_array(np.array([1], np.int64))
    sparse = onnx.helper.make_sparse_tensor(values, indices, [3])
    model.functions[0].node.insert(0, onnx.helper.make_node("Constant", [], ["w"], sparse_value=sparse))
    with pytest.raises(InputError, match="Sparse tensors are not supported"):
        modelio.load(model)


def test_many_that_are_too_large_together_are_not_run() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[M,16384] x) => (float[M,16384] y) { a = MatMul(x, w0) b = MatMul(a, w1) y = MatMul(b, w2) }""")
    for number in range(3):  # 1 GiB each when dense
        values = from_array(np.array([2], np.float32), f"w{number}")
        where = from_array(np.array([0], np.int64))
        model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, where, [16384, 16384]))
    assert not sparsify.optimize(model, passes="cleanup").changed
    with pytest.raises(InputError, match="dense, and run out of memory"):
        sparsify.optimize(model, passes="cleanup", data={"x": np.zeros((1, 16384), np.float32)})


def test_a_few_bytes_that_claim_very_many_columns_are_left() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[M,12] x) => (float[M,N] y) { y = MatMul(x, w) }""")
    values, where = from_array(np.array([2], np.float32), "w"), from_array(np.array([0], np.int64))
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, where, [12, 2**40]))
    (row,) = sparsify.inspect(model, threads=1)["nodes"]
    assert row["note"] == "the weight is sparse, and too large to be made dense"
    assert not sparsify.optimize(model, passes="sparse-fp32", threads=1).changed
