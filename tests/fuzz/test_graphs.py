"""Every pass on random graphs: base and rewritten are both right, within what their arithmetic may be off by.

`SPARSIFY_FUZZ_EXAMPLES` sets how many graphs each pipeline gets; `make fuzz` gives many.
"""

from __future__ import annotations

import os

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsify.pipeline import Pipeline, parse
from tests.fuzz.graphs import INPUT, Graph, evaluate, graphs, to_onnx
from tests.onemodel import session

EXAMPLES = int(os.environ.get("SPARSIFY_FUZZ_EXAMPLES", "12"))
PIPELINES = {
    "cleanup": "fp32",
    "detect,shrink": "fp32",
    "cleanup,shrink,sparse-fp32{min_sparsity=0.0},fuse-epilogue": "fp32",
    "sparse-fp32{min_sparsity=0.0},cleanup": "fp32",
    "cleanup,shrink,sparse-int8,fuse-epilogue": "int8",
    "sparse-int8,fuse-epilogue,share-quantization{measure=false}": "int8",
    "sparse-int8{min_sparsity=0.5},sparse-bf16,fuse-epilogue": "both",
    "cleanup,sparse-bf16,fuse-epilogue": "bf16",
    "stock-int8{reduce_range=true}": "stock",
    "prune{pattern=2:4,min_size=1},sparse-fp32{min_sparsity=0.0},fuse-epilogue": "fp32",
    "prune{pattern=unstructured,sparsity=0.7,min_size=1},sparse-fp32{min_sparsity=0.0},stamp{version=1}": "fp32",
}


@pytest.mark.parametrize("pipeline", PIPELINES)
@settings(max_examples=EXAMPLES)
@given(graph=graphs(), constants=st.booleans(), seed=st.integers(0, 99), size=st.sampled_from([1e-2, 1.0, 30.0]))
def test_passes_keep_what_a_graph_computes(pipeline, graph, constants, seed, size):
    x = (np.random.default_rng(seed).standard_normal(graph.shape) * size).astype(np.float32)
    base = to_onnx(graph, constants)
    assert_right(graph, base, x, graph.arrays, "fp32")
    model = ir.from_proto(base)
    passes = parse(pipeline)
    pruning = passes[0].name == "prune"
    if pruning:
        Pipeline(passes[:1]).run(model, sample={INPUT: x})
    arrays = stored(graph, model) if pruning else graph.arrays
    Pipeline(passes[1:] if pruning else passes).run(model, sample={INPUT: x})
    assert_right(graph, ir.to_proto(model), x, arrays, PIPELINES[pipeline])


def stored(graph: Graph, model: ir.Model) -> dict[str, np.ndarray]:
    """Weights and biases as they are in `model`, in initializers or Constant nodes."""
    found = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    for node in model.graph:
        if node.op_type == "Constant":
            found[node.outputs[0].name] = node.attributes["value"].as_tensor().numpy()
    return {name: found.get(name, array) for name, array in graph.arrays.items()}


def assert_right(
    graph: Graph, model: onnx.ModelProto, x: np.ndarray, arrays: dict[str, np.ndarray], arithmetic: str
) -> None:
    """Outputs on our kernels and on stock onnxruntime are within the bound of the arithmetic, or of either of two."""
    kinds = ("int8", "bf16") if arithmetic == "both" else (arithmetic,)
    right = [evaluate(graph, x, arrays, kind) for kind in kinds]
    for native in (True, False):
        answers = session(model, native=native).run(graph.outputs, {INPUT: x})
        for name, answer in zip(graph.outputs, answers, strict=True):
            expected = right[0][name][0]
            # Which layers fell to which is not asked: errors of both arithmetics add up at most.
            bound = sum(each[name][1] for each in right)
            assert answer.shape == expected.shape
            worst = np.max(np.abs(answer - expected) - bound, initial=-1)
            assert worst <= 0, f"{name} is off by more than its bound, by {worst}"
