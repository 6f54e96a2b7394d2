"""Any bytes: load, inspect and optimize end in an answer or in an error that is the user's. `make fuzz` runs it.

    python -m tests.fuzz.target [libFuzzer options] [CORPUS...]

Nothing is measured: measurements are replaced by constants, as they take seconds and decide nothing about safety.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import atheris

with atheris.instrument_imports(include=["sparsify", "onnx_ir"]):
    import sparsify
    from sparsify import cost
    from sparsify.api import facts

import onnx
from google.protobuf.message import DecodeError

from sparsify.errors import ExitStatus, SparsifyError

_EVERYTHING = (
    "cleanup,detect,shrink,prune{min_size=1,pattern=2:4},sparse-int8,sparse-fp32{min_sparsity=0.0},fuse-epilogue",
    "cleanup,shrink,sparse-bf16,fuse-epilogue",
    "cleanup,stock-int8",
)
_OPERATORS = (
    "MatMul",
    "Gemm",
    "Add",
    "Mul",
    "Relu",
    "Identity",
    "Transpose",
    "Cast",
    "Reshape",
    "Gather",
    "If",
    "Loop",
)


def one_input(data: bytes) -> None:
    """What is run on each input."""
    try:
        if len(data) % 4 == 0:
            sparsify.inspect(data, threads=1)
        else:
            sparsify.optimize(data, passes=_EVERYTHING[len(data) % 4 - 1], threads=1)
    except SparsifyError as error:
        if error.status is ExitStatus.BUG:
            raise


def mutate(data: bytes, limit: int, seed: int) -> bytes:
    """Half of the time other bytes; else another model: nodes rewired, renamed, doubled, dropped, shapes changed."""
    rng = random.Random(seed)
    if rng.random() < 0.3:
        return bytes(atheris.Mutate(data, limit))
    try:
        model = onnx.ModelProto.FromString(data)
        _change(model, rng)
        changed = model.SerializeToString()
    except (DecodeError, IndexError, ValueError, TypeError):
        return bytes(atheris.Mutate(data, limit))
    return changed if len(changed) <= limit else data


def _change(model: onnx.ModelProto, rng: random.Random) -> None:
    graph = model.graph
    node, tensor = rng.choice(graph.node), rng.choice(graph.initializer) if graph.initializer else None
    names = (
        [t.name for t in graph.initializer] + [v.name for v in graph.input] + [o for n in graph.node for o in n.output]
    )
    which = rng.randrange(13)
    if which == 0:
        node.input[rng.randrange(len(node.input))] = rng.choice([*names, "", "nowhere"])
    elif which == 1:
        node.op_type = rng.choice(_OPERATORS)
    elif which == 2:
        graph.node.add().CopyFrom(node)
    elif which == 3:
        graph.node.remove(node)
    elif which == 4:
        node.output[rng.randrange(len(node.output))] = rng.choice(names)
    elif which == 5 and tensor is not None:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice([-1, 0, 1, 2, 3, 2**20, 2**40, 2**62])
    elif which == 6 and tensor is not None:
        tensor.data_type = rng.randrange(24)
    elif which == 7:
        rng.choice(model.opset_import).version = rng.randrange(-1, 30)
    elif which == 8:
        model.ir_version = rng.randrange(14)
    elif which == 9:
        graph.output.add().name = rng.choice(names)
    elif which == 10 and tensor is not None:
        graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    elif which == 11:
        attribute: Any = rng.choice(node.attribute)
        attribute.i, attribute.f = rng.choice([-1, 0, 1, 2, 2**62]), rng.choice([0.0, -1.0, 1e38, float("nan")])
    else:
        value = rng.choice([*graph.input, *graph.output])
        value.type.tensor_type.elem_type = rng.randrange(24)


def main() -> None:
    """Run until libFuzzer's options say stop."""
    cost.measure = lambda *_, **__: cost.Cost(2.0, 1.0)  # type: ignore[assignment]
    facts.latency = lambda *_, **__: None  # type: ignore[assignment]
    atheris.Setup(sys.argv, one_input, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
