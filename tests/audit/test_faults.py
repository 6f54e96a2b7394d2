"""Twenty faults of a single node in three models, whose candidates are also renamed, fused or quantised: who did it?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnxruntime.quantization import quantize_dynamic

from sparsify.audit.attribution import Attribution, drift_of_layers
from tests.audit import faults
from tests.audit.encoder import encoder, renamed
from tests.audit.encoder import feed as tokens
from tests.audit.faults import Fault, attribute_fault, dropped, operator_fault, swapped_inputs, weight_fault
from tests.small import feed as vectors
from tests.small import mlp

Model = onnx.ModelProto
FEEDS = {"encoder": [tokens(1), tokens(2)], "mlp": [vectors(1, 8), vectors(2, 8)], "cnn": []}


def cnn() -> Model:
    """image float32 [batch, 3, 16, 16] -> y float32 [batch, 4]: two convolutions, normalised, pooled."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        cnn (float[batch,3,16,16] image) => (float[batch,4] y) {
            c1 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(image, k1, b1)
            n1 = BatchNormalization<epsilon = 1e-5>(c1, g, s, m, v)
            r1 = Relu(n1)
            p1 = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r1)
            c2 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(p1, k2, b2)
            r2 = LeakyRelu<alpha = 0.1>(c2)
            p2 = GlobalAveragePool(r2)
            f = Flatten(p2)
            y = Gemm(f, w, b)
        }""")
    random = np.random.default_rng(0)
    shapes = {"k1": (8, 3, 3, 3), "b1": (8,), "g": (8,), "s": (8,), "m": (8,), "k2": (8, 8, 3, 3), "b2": (8,)}
    arrays = {name: random.standard_normal(shape) / 3 for name, shape in shapes.items()}
    arrays |= {"v": 1e-3 + random.random(8) / 100, "w": random.standard_normal((8, 4)), "b": random.standard_normal(4)}
    arrays["g"] += 1
    for name, array in arrays.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    return named(model)


def named(model: Model) -> Model:
    for node in model.graph.node:
        node.name = node.name or f"{node.output[0]}/{node.op_type}"
    return model


FEEDS["cnn"] = [
    {"image": np.random.default_rng(seed).standard_normal((4, 3, 16, 16)).astype(np.float32)} for seed in (1, 2)
]
BASES: Mapping[str, Callable[[], Model]] = {"encoder": encoder, "mlp": lambda: named(mlp()), "cnn": cnn}
UP, DOWN, V = "/l0_up_proj/MatMul", "/l1_down_proj/MatMul", "/l1_v_proj/MatMul"
FAULTS: list[tuple[str, str, Callable[[Model], Fault]]] = [
    ("encoder", "transposed square weight", lambda m: weight_fault(m, V, faults.transposed)),
    ("encoder", "transposed weight", lambda m: weight_fault(m, UP, faults.transposed)),
    ("encoder", "saturated int8", lambda m: weight_fault(m, DOWN, faults.saturated)),
    ("encoder", "one scale for int4", lambda m: weight_fault(m, UP, faults.per_tensor_int4)),
    ("encoder", "dead column", lambda m: weight_fault(m, V, faults.one_dead_column)),
    ("encoder", "wrong attention scale", lambda m: weight_fault(m, "/l0_scaled/Div", lambda s: s * 2)),
    ("encoder", "dropped bias", lambda m: dropped(m, "/l1_up/Add", 0)),
    ("encoder", "bias of zeros", lambda m: weight_fault(m, "/l0_o/Add", np.zeros_like)),
    ("encoder", "swapped q and k", lambda m: swapped(m, "/l1_q_proj/MatMul", "/l1_k_proj/MatMul")),
    ("encoder", "another epsilon", lambda m: attribute_fault(m, "/l1_n1/LayerNormalization", "epsilon", 1e-1)),
    ("encoder", "softmax over the wrong axis", lambda m: attribute_fault(m, "/l0_attention/Softmax", "axis", 1)),
    ("encoder", "gain dropped", lambda m: weight_fault(m, "/l0_out/LayerNormalization", np.ones_like)),
    ("encoder", "Tanh for Erf", lambda m: operator_fault(m, "/l1_e2/Erf", "Tanh")),
    ("mlp", "transposed weight", lambda m: weight_fault(m, "h/MatMul", faults.transposed)),
    ("mlp", "saturated int8", lambda m: weight_fault(m, "y/Gemm", faults.saturated)),
    ("mlp", "dropped bias", lambda m: dropped(m, "a/Add", 0)),
    ("cnn", "another epsilon", lambda m: attribute_fault(m, "n1/BatchNormalization", "epsilon", 1e-2)),
    ("cnn", "filters turned round", lambda m: weight_fault(m, "c2/Conv", lambda k: k[:, :, ::-1, ::-1])),
    ("cnn", "another slope", lambda m: attribute_fault(m, "r2/LeakyRelu", "alpha", 0.2)),
    ("cnn", "mean and variance swapped", lambda m: swapped_inputs(m, "n1/BatchNormalization", 1, 2)),
]


def swapped(model: Model, first: str, second: str) -> Fault:
    """Two nodes that read each other's weight."""
    other = onnx.ModelProto.FromString(model.SerializeToString())
    a, b = faults.node(other, first), faults.node(other, second)
    a.input[1], b.input[1] = b.input[1], a.input[1]
    return other, {first, second}


def attribution(kind: str, base: Model, candidate: Model) -> Attribution:
    return drift_of_layers(base, candidate, FEEDS[kind], threads=1, native=True)


def blamed(found: Attribution) -> tuple[str, ...]:
    """Nodes of the base that the first suspect stands for."""
    return found.suspects[0].base_nodes if found.suspects else ()


def as_is(model: Model, folder: Path) -> Model:
    return model


def anew(model: Model, folder: Path) -> Model:
    return renamed(model, numbered=True)[0]


def fused(model: Model, folder: Path) -> Model:
    """As onnxruntime writes it out after its own optimisation."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "fused.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "fused.onnx")


def quantised(model: Model, folder: Path) -> Model:
    """int8 by onnxruntime: every product drifts, the faulty node more."""
    onnx.save(model, folder / "base.onnx")
    quantize_dynamic(folder / "base.onnx", folder / "int8.onnx", op_types_to_quantize=["MatMul"], per_channel=True)
    return onnx.load(folder / "int8.onnx")


def missed_by(made: Callable[[Model, Path], Model], folder: Path) -> list[str]:
    """The faults whose node is not blamed first in candidates of that make."""
    missed = []
    for kind, what, plant in FAULTS:
        base = BASES[kind]()
        candidate, guilty = plant(base)
        if not guilty & set(blamed(attribution(kind, base, made(candidate, folder)))):
            missed.append(f"{kind}: {what}")
    return missed


@pytest.mark.parametrize("made", [as_is, anew])
def test_nineteen_of_twenty_faults_are_found_first(made: Callable[[Model, Path], Model], tmp_path: Path):
    """The aim: the faulty node is ranked first in 19 of 20, whatever the candidate's names."""
    assert len(FAULTS) == 20
    missed = missed_by(made, tmp_path)
    assert len(missed) <= 1, missed


@pytest.mark.slow
@pytest.mark.parametrize(("made", "most"), [(fused, 4), (quantised, 5)])
def test_most_faults_are_found_in_models_that_drift_everywhere(
    made: Callable[[Model, Path], Model], most: int, tmp_path: Path
):
    """No aim, but what was measured: in int8 the first place may go to a quantised product beside a smaller fault."""
    missed = missed_by(made, tmp_path)
    assert len(missed) <= most, missed


def test_a_model_without_a_fault_accuses_nobody():
    for kind, make in BASES.items():
        found = attribution(kind, make(), renamed(make())[0])
        # onnxruntime folds the normalisation into the convolution only where both are in one model: rounding.
        assert all(row.own < 1e-6 for row in found.rows)
        assert found.first is None
