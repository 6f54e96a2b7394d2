"""Which values belong together, when a model was renamed, fused, quantised or renumbered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnxruntime.quantization import quantize_dynamic

from sparsify import runtime
from sparsify.audit.attribution.matching import Matching, match
from sparsify.audit.attribution.sides import Side
from tests.audit.encoder import encoder, renamed
from tests.audit.encoder import feed as feed_of


def matching(base: onnx.ModelProto, candidate: onnx.ModelProto) -> Matching:
    feed = feed_of()
    with runtime.probe(base) as old, runtime.probe(candidate) as new:
        return match(Side(old, feed), Side(new, feed), feed, limit=2**20)


@pytest.mark.parametrize("numbered", [False, True])
def test_a_model_whose_names_all_changed_is_matched_by_structure(numbered: bool):
    base = encoder()
    candidate, names = renamed(base, numbered=numbered)
    found = matching(base, candidate)
    values = [o for node in base.graph.node for o in node.output]
    assert found.partner == {names[v]: v for v in values if names[v] in found.partner}
    assert len(found.partner) >= len(base.graph.node) - 1  # all but the mask, which is an integer before it is cast


def test_numbers_that_moved_by_one_are_no_names():
    base, _ = renamed(encoder(), numbered=True)
    candidate, _ = renamed(encoder(), numbered=True, start=1)
    found = matching(base, candidate)
    assert all(int(new) == int(old) + 1 for new, old in found.partner.items() if new.isdigit())
    assert len(found.partner) >= len(base.graph.node) - 1


def test_names_that_were_shuffled_are_not_believed():
    base, _ = renamed(encoder(), stem="v")
    candidate, _ = renamed(encoder(), stem="v", start=1)
    found = matching(base, candidate)
    assert all(int(new[1:]) == int(old[1:]) + 1 for new, old in found.partner.items() if new.startswith("v"))
    assert len(found.partner) >= len(base.graph.node) - 1


def test_onnxruntimes_quantised_model(tmp_path: Path):
    onnx.save(encoder(), tmp_path / "base.onnx")
    quantize_dynamic(tmp_path / "base.onnx", tmp_path / "int8.onnx")
    base, candidate = encoder(), onnx.load(tmp_path / "int8.onnx")
    assert any(node.op_type == "MatMulInteger" for node in candidate.graph.node)
    found = matching(base, candidate)
    products = [n.output[0] for n in base.graph.node if n.op_type == "MatMul" and "proj" in n.name]
    assert products
    assert {found.partner[v] for v in products} == set(products)
    other, names = renamed(candidate)
    again = matching(base, other)
    assert {again.partner[names[v]] for v in products if names[v] in again.partner} == set(products)


@pytest.mark.parametrize("change_names", [False, True])
def test_onnxruntimes_optimised_model(tmp_path: Path, change_names: bool):
    base = encoder()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    ort.InferenceSession(base.SerializeToString(), options, providers=["CPUExecutionProvider"])
    candidate = onnx.load(tmp_path / "fused.onnx")
    fused = {node.op_type for node in candidate.graph.node}
    assert fused & {"LayerNormalization", "SkipLayerNormalization", "FusedMatMul", "BiasGelu", "Gelu"}
    if change_names:
        candidate, _ = renamed(candidate)
    found = matching(base, candidate)
    assert len(found.partner) >= 0.8 * len(candidate.graph.node)
    # Rounding aside the two compute the same: pairs that are not equal would not belong together.
    with runtime.probe(base) as old, runtime.probe(candidate) as new:
        before = runtime.run(old.session(set(found.partner.values())), feed_of())
        after_values = runtime.run(new.session(found.partner), feed_of())
    for new_name, old_name in found.partner.items():
        np.testing.assert_allclose(after_values[new_name], before[old_name], rtol=1e-3, atol=1e-4)
