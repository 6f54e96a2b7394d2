"""Write the seeds in tests/fuzz/corpus: one small model for each thing that graphs in the wild do.

python -m tests.fuzz.make_corpus
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx.numpy_helper import from_array

from tests.coverage.exact import K, N, model, weight
from tests.coverage.test_scopes import BODIES, FUNCTIONS
from tests.coverage.test_weights import SHARED
from tests.small import mlp

FOLDER = Path(__file__).parent / "corpus"


def seeds() -> dict[str, onnx.ModelProto]:
    """The models by name; a few KB in all."""
    found = {f"body-{kind}": model(text, {"w": weight()}) for kind, text in BODIES.items()}
    found |= {f"shared-{kind.replace(' ', '-')}": model(text, {"w": weight()}) for kind, text in SHARED.items()}
    for kind, text in FUNCTIONS.items():
        head = f'<ir_version: 8, opset_import: ["" : 17, "f" : 1]> g (float[M,{K}] x) => (float[M,{N}] y) {{ '
        function = onnx.parser.parse_model(head + text)
        given = from_array(np.ascontiguousarray(weight().T), "v") if "v)" in text else from_array(weight(), "w")
        function.graph.initializer.append(given)
        found[f"function-{kind.replace(' ', '-')}"] = function
    found |= {f"sparse-{kind}": _sparse(flat) for kind, flat in (("linear", True), ("by-rank", False))}
    found["strings"] = model(
        f'g (float[M,{K}] x) => (float[M,{N}] y, string[2,1] t) {{ k = Constant<value_strings = ["a", "b"]>() '
        "s = Constant<value = int64[2] {2, 1}>() t = Reshape(k, s) y = MatMul(x, w) }",
        {"w": weight()},
    )
    found["convolutions"] = _convolutions()
    small = mlp(sparsity=0.7)
    for tensor in small.graph.initializer:  # 64 x 96 x 32 made 6 x 8 x 4: a mutation is to hit structure, not weights
        array = onnx.numpy_helper.to_array(tensor)[tuple(slice(0, max(d // 12, 2)) for d in tensor.dims)]
        tensor.CopyFrom(from_array(np.ascontiguousarray(array), tensor.name))
    for value in (*small.graph.input, *small.graph.output):
        dim = value.type.tensor_type.shape.dim[1]
        dim.dim_value = max(dim.dim_value // 12, 2)
    found["mlp"] = small
    return found


def _convolutions() -> onnx.ModelProto:
    """A convolution of 1x1, another with what follows it, and one that enlarges the image."""
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 3, 1, 1), "t": (2, 4, 2, 2), "u": (2, 2, 4, 4), "b": (4,), "g": (2,), "h": (2,)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["v"] = np.array([0.5, 2], np.float32)
    return model(
        """g (float[B,3,3,2] x) => (float[B,2,I,J] y) {
            c = Conv(x, w, b) r = Relu(c)
            d = Conv<pads = [1, 1, 0, 0]>(r, t) n = BatchNormalization(d, g, h, h, v)
            e = ConvTranspose<strides = [2, 2], pads = [1, 1, 1, 1]>(n, u, g) m = Mul(e, half) y = Sigmoid(m)
        }""",
        {**arrays, "half": np.array(0.5, np.float32)},
    )


def _sparse(flat: bool) -> onnx.ModelProto:
    """A layer whose weight is a sparse initializer; a field that nobody knows beside it."""
    proto = model(f"g (float[M,{K}] x) => (float[M,{N}] y) {{ y = MatMul(x, w) }}")
    positions = np.argwhere(weight())
    indices = np.ravel_multi_index(tuple(positions.T), (K, N)) if flat else positions
    values = from_array(weight()[tuple(positions.T)], "w")
    proto.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, from_array(indices), [K, N]))
    proto.graph.node[0].MergeFromString(b"\xc2>\x03odd")  # field 1000
    return proto


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, seed in seeds().items():
        (FOLDER / f"{name}.onnx").write_bytes(seed.SerializeToString())
