"""Any bytes: load, inspect and optimize end in an answer or in an error that is the user's.

Nothing is measured: measurements are replaced by constants, as they take seconds and decide nothing about safety.
onnxruntime is asked about one input in `_SESSIONS`, always the same ones: it is slow, and not what is tried here. One
in `_LEARNING` is optimised with data, and the result audited.
`search.py` looks for inputs that are worse, `test_target.py` tries some.
"""

from __future__ import annotations

import random
import zlib
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

import sparsify
from sparsify import cost, modelio, resume
from sparsify.api import facts, inspection, optimizer, samples
from sparsify.errors import ExitStatus, SparsifyError

CORPUS = Path(__file__).parent / "corpus"
_SESSIONS = 8
_LEARNING = 16
_MOST_BYTES = 2**20  # of a feed to learn from: what a model computes takes what it takes
_DEADLINE_S = 2.0  # of a model that runs
_EVERYTHING = (
    "cleanup,conv-matmul,detect,shrink,prune{min_size=1,pattern=2:4},sparse-int8,sparse-fp32{min_sparsity=0.0},"
    "settle-layout,fuse-epilogue,share-quantization{measure=false}",
    "cleanup,conv-matmul,settle-layout,shrink,sparse-bf16,fuse-epilogue",
    "cleanup,conv-matmul,stock-int8,settle-layout",
)
_LEARNED = (
    "cleanup,conv-matmul,smooth,prune{min_size=1,pattern=2:4,method=auto},sparse-int8,dynamic-sparse,settle-layout,"
    "fuse-epilogue,stamp",
    "cleanup,prune{min_size=1,sparsity=0.5,method=obs},sparse-fp32{min_sparsity=0.0},fuse-epilogue",
    "cleanup,smooth,stock-nbits",
)
_TIMES = {"base": {"median_ms": 2.0}, "candidate": {"median_ms": 1.0}, "speedup": 2.0, "measured_on": "nothing"}
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
    "Conv",
    "ConvTranspose",
    "BatchNormalization",
    "If",
    "Loop",
)


def prepare(patch: Any = setattr) -> None:
    """Leave out what takes long; `patch` sets an attribute of a module."""
    patch(cost, "measure", lambda *_, **__: cost.Cost(2.0, 1.0))
    patch(facts, "latency", lambda *_, **__: _TIMES)
    patch(resume.Saved, "save", lambda *_: None)
    patch(samples, "DEADLINE_S", _DEADLINE_S)


def one_input(data: bytes) -> None:
    """What is run on each input."""
    seed = zlib.crc32(data)
    trial = samples.trial if seed % _SESSIONS == 0 else _untried
    inspection.trial = optimizer.trial = trial
    way = seed // _SESSIONS % 7
    try:
        if seed // (_SESSIONS * 7) % _LEARNING == 0:
            _learn(data, way % 3)
        elif way == 6:  # two levels: twice as slow
            sparsify.inspect(data, threads=1)
        else:
            sparsify.optimize(data, passes=_EVERYTHING[way % 3], threads=1)
    except SparsifyError as error:
        if error.status is ExitStatus.BUG and _is_ours(data):
            raise


def _learn(data: bytes, way: int) -> None:
    """Optimise with data; not what has no end, or takes what cannot be made up, or too much."""
    feed = samples.trial(modelio.load(data), seed=0).feed
    if feed is not None and sum(array.nbytes for array in feed.values()) < _MOST_BYTES:
        sparsify.optimize(data, data=[feed] * 4, passes=_LEARNED[way], threads=1)


def _untried(*_: Any, **__: Any) -> samples.Trial:
    return samples.Trial()


def _is_ours(data: bytes) -> bool:
    """Whether onnxruntime takes the model: `optimize` asks it before all else."""
    optimizer.trial = samples.trial  # type: ignore[attr-defined]
    try:
        sparsify.optimize(data, passes="detect", threads=1)
    except SparsifyError:
        return False
    return True


def mutate(data: bytes, rng: random.Random) -> bytes | None:
    """Another model: nodes rewired, renamed, doubled, dropped, shapes changed; None where that cannot be done."""
    try:
        model = onnx.ModelProto.FromString(data)
        _change(model, rng)
        return bytes(model.SerializeToString())
    except (DecodeError, IndexError, ValueError, TypeError):
        return None


def _change(model: onnx.ModelProto, rng: random.Random) -> None:
    graph = model.graph
    node, tensor = rng.choice(graph.node), rng.choice(graph.initializer) if graph.initializer else None
    names = (
        [t.name for t in graph.initializer] + [v.name for v in graph.input] + [o for n in graph.node for o in n.output]
    )
    which = rng.randrange(14)
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
    elif which == 12 and graph.sparse_initializer:
        _change_sparse(rng.choice(graph.sparse_initializer), rng)
    else:
        value = rng.choice([*graph.input, *graph.output])
        value.type.tensor_type.elem_type = rng.randrange(24)


def _change_sparse(sparse: onnx.SparseTensorProto, rng: random.Random) -> None:
    """Another shape, type or name of a part, or other positions."""
    part = rng.choice([sparse.values, sparse.indices])
    which = rng.randrange(4)
    if which == 0:
        sparse.dims[rng.randrange(len(sparse.dims))] = rng.choice([-1, 0, 1, 5, 2**20, 2**40, 2**62])
    elif which == 1:
        part.dims[rng.randrange(len(part.dims))] = rng.choice([-1, 0, 1, 2, 2**40])
    elif which == 2:
        part.data_type = rng.randrange(24)
    else:
        data = bytearray(part.raw_data)
        data[rng.randrange(len(data))] = rng.randrange(256)
        part.raw_data = bytes(data)
