"""What two files differ in, told without running them."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import pytest

from sparsify.audit.changes import Changes, changes
from tests.audit.encoder import encoder, renamed
from tests.small import mlp


def compared(base: onnx.ModelProto, candidate: onnx.ModelProto, sha256: str = "ab") -> Changes:
    found = changes(ir.from_proto(base), ir.from_proto(candidate), sha256)
    json.dumps(found.to_dict(), allow_nan=False)
    return found


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())


def weight(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(t for t in model.graph.initializer if t.name == name)


def test_nothing_changed():
    found = compared(mlp(), mlp())
    assert (found.same_weights, found.renamed_weights, found.weights, found.operators) == (4, 0, (), {})
    assert found.interface == ()
    assert found.nodes == (4, 4)
    assert found.opsets == {"": (17, 17)}
    assert found.stamp == {}
    assert found.stamp_source is None


def test_a_weight_that_was_pruned():
    base, candidate = mlp(), mlp()
    tensor = weight(candidate, "w1")
    array = onnx.numpy_helper.to_array(tensor).copy()
    array[::2] = 0
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, "w1"))
    found = compared(base, candidate)
    (row,) = found.weights
    assert (row.name, row.change, row.shape) == ("w1", "changed", ([64, 96], [64, 96]))
    assert row.zeros == (0.0, 0.5)
    dense = onnx.numpy_helper.to_array(weight(base, "w1")).astype(float)
    assert row.relative_l2 == pytest.approx(np.sqrt((dense[::2] ** 2).sum() / (dense**2).sum()), rel=1e-12)
    assert found.same_weights == 3
    total = sum(onnx.numpy_helper.to_array(t).size for t in base.graph.initializer)
    assert found.zeros == (0.0, 32 * 96 / total)


def test_a_weight_of_another_type_is_new_and_the_old_one_gone():
    base, candidate = mlp(), mlp()
    tensor = weight(candidate, "w1")
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros((64, 96), np.int8), "w1_quantized"))
    candidate.graph.node[0].input[1] = "w1_quantized"
    rows = {row.name: row for row in compared(base, candidate).weights}
    assert {name: row.change for name, row in rows.items()} == {"w1": "removed", "w1_quantized": "added"}
    assert rows["w1_quantized"].type == (None, "int8")
    assert rows["w1"].bytes == (64 * 96 * 4, None)


def test_new_names_are_not_new_weights():
    base = encoder()
    other, _ = renamed(base)
    found = compared(base, other)
    assert found.weights == ()
    assert found.renamed_weights + found.same_weights == len(base.graph.initializer)


def test_operators_opsets_and_interface():
    base, candidate = mlp(), mlp()
    candidate.graph.node[2].op_type = "Gelu"
    candidate.opset_import[0].version = 20
    candidate.opset_import.add(domain="com.microsoft", version=1)
    candidate.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    candidate.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "another"
    found = compared(base, candidate)
    assert found.operators == {"Gelu": (0, 1), "Relu": (1, 0)}
    assert found.opsets == {"": (17, 20), "com.microsoft": (None, 1)}
    assert found.interface == ("output `y` was float [?, 32] and is float16 [?, 32]",)


@pytest.mark.parametrize(("digest", "same"), [("ab", True), ("cd", False)])
def test_the_stamp_is_held_against_the_base(digest: str, same: bool):
    candidate = mlp()
    for key, value in (("source", f"sha256:{digest}"), ("pipeline", "prune"), ("version", "1")):
        candidate.metadata_props.add(key=f"ai.sparsify.{key}", value=value)
    candidate.metadata_props.add(key="author", value="somebody")
    found = compared(mlp(), candidate)
    assert found.stamp == {"source": f"sha256:{digest}", "pipeline": "prune", "version": "1"}
    assert found.stamp_source is same
