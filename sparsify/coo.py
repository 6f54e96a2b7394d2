"""ONNX's sparse initializers, which onnx_ir does not know: kept as they came, made dense only where that is small.

A sparse initializer is values [NNZ] and where they stand in a tensor of shape `dims`: indices [NNZ] into the flattened
tensor, or [NNZ, rank], ascending. In an `ir.Model` it is an initializer like any other, whose tensor is a `Coo`. Who
asks a `Coo` for its data gets all of it, zeros included, or an InputError where that would be more than `DENSE_BYTES`.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import scipy.sparse

from sparsify.errors import InputError

DENSE_BYTES = 2**31 - 2**26  # what fits one protobuf message, which is how onnxruntime would hold it
MOST_SIDE = 2**26  # rows or columns of a matrix that is used as it is: a column takes 12 bytes, however empty it is

# Of a tensor that stands for a sparse initializer while onnx_ir writes a model; another in every process, so that no
# file can claim to hold one.
_MARK = f"sparsify.coo.{uuid.uuid4()}"


class Coo(ir.LazyTensor):
    """A sparse initializer as a tensor.

    Attributes:
        proto: the message as it came; never changed.
    """

    def __init__(self, proto: onnx.SparseTensorProto, where: str = "") -> None:
        """Raises InputError for indices of another form, outside `dims`, or not ascending."""
        self.proto = proto
        self._values = ir.serde.deserialize_tensor(proto.values)
        self._flat = _positions(proto, where)
        super().__init__(
            self._dense, self._values.dtype, ir.Shape([int(d) for d in proto.dims]), name=proto.values.name
        )

    @property
    def nbytes(self) -> int:
        """Bytes of values and indices, as they are stored."""
        return int(self._values.nbytes + self._flat.nbytes)

    @property
    def is_huge(self) -> bool:
        """Whether it cannot be made dense."""
        return dense_bytes(self.proto) > DENSE_BYTES

    @property
    def nnz(self) -> int:
        """Values that are stored and not zero."""
        return int(np.count_nonzero(self._values.numpy()))

    def _dense(self) -> ir.TensorProtocol:
        if self.is_huge:
            raise InputError(
                f"sparse initializer `{self.name}` {[int(d) for d in self.proto.dims]} would take "
                f"{dense_bytes(self.proto)} bytes when dense",
                hint="only linear layers can use it as it is; onnxruntime itself makes it dense",
            )
        values = self._values.numpy()
        dense = np.zeros(math.prod(self.proto.dims), values.dtype)
        dense[self._flat] = values
        return ir.Tensor(dense.reshape(tuple(self.proto.dims)), dtype=self._values.dtype, name=self.name)

    def matrix(self) -> scipy.sparse.csc_array:
        """The last two dimensions float32 [rows, columns]; those before them must be 1."""
        rows, columns = (int(d) for d in self.proto.dims[-2:])
        at = np.divmod(self._flat, columns)
        return scipy.sparse.csc_array((self._values.numpy().astype(np.float32), at), shape=(rows, columns))


def dense_bytes(proto: onnx.SparseTensorProto) -> int:
    """Bytes of all elements."""
    size = onnx.helper.tensor_dtype_to_np_dtype(proto.values.data_type).itemsize
    return int(math.prod(proto.dims) * size)


def are_in(graph: onnx.GraphProto) -> bool:
    """Whether there is anything in `graph` for `take_in`."""
    attributes = (a for node in graph.node if node.op_type == "Constant" for a in node.attribute)
    return bool(graph.sparse_initializer) or any(a.type == onnx.AttributeProto.SPARSE_TENSOR for a in attributes)


def take_in(graph: onnx.GraphProto, kept: list[onnx.SparseTensorProto]) -> None:
    """Put initializers without data in the place of `graph`'s sparse ones, which `put_in` makes `Coo` of.

    So are sparse Constants, which onnx_ir cannot read: they become sparse initializers.
    """
    for node in [node for node in graph.node if node.op_type == "Constant" and node.domain in ("", "ai.onnx")]:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
                graph.sparse_initializer.append(attribute.sparse_tensor)
                graph.sparse_initializer[-1].values.name = node.output[0]
                graph.node.remove(node)
    for sparse in graph.sparse_initializer:
        mark = f"{_MARK}:{len(kept)}"
        graph.initializer.add(
            name=sparse.values.name, data_type=sparse.values.data_type, dims=sparse.dims, doc_string=mark
        )
        kept.append(onnx.SparseTensorProto.FromString(sparse.SerializeToString()))
    del graph.sparse_initializer[:]


def put_in(model: ir.Model, kept: list[onnx.SparseTensorProto], where: str) -> None:
    """Make `Coo` of what `take_in` put into the message that `model` was read from.

    Raises:
        InputError: one of them contradicts itself.
    """
    for graph in _all_graphs(model):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and (tensor.doc_string or "").startswith(_MARK):
                value.const_value = Coo(kept[_number(str(tensor.doc_string))], where)


def put_out(model: ir.Model) -> tuple[ir.Model, list[onnx.SparseTensorProto]]:
    """`model` as onnx_ir can write it without making anything dense, and what `restore` puts back afterwards."""
    kept: list[onnx.SparseTensorProto] = []
    if not any(True for _ in tensors(model)):
        return model, kept
    model = model.clone()  # shares all tensors
    for value, tensor in tensors(model):
        carrier = onnx.TensorProto(
            name=value.name, data_type=int(tensor.dtype), dims=[0], doc_string=f"{_MARK}:{len(kept)}"
        )
        kept.append(tensor.proto)
        value.const_value = ir.serde.TensorProtoTensor(carrier)
    return model, kept


def restore(graph: onnx.GraphProto, kept: list[onnx.SparseTensorProto]) -> None:
    """Make sparse initializers of what `put_out` put in their place."""
    for tensor in [tensor for tensor in graph.initializer if tensor.doc_string.startswith(_MARK)]:
        sparse = graph.sparse_initializer.add()
        sparse.CopyFrom(kept[_number(tensor.doc_string)])
        sparse.values.name = tensor.name
        graph.initializer.remove(tensor)


def tensors(model: ir.Model) -> Iterator[tuple[ir.Value, Coo]]:
    """The initializers of all graphs that are sparse."""
    for graph in _all_graphs(model):
        for value in graph.initializers.values():
            if isinstance(value.const_value, Coo):
                yield value, value.const_value


def _positions(proto: onnx.SparseTensorProto, where: str) -> npt.NDArray[np.int64]:
    """Where the values stand in the flattened tensor [NNZ]."""
    name, dims = proto.values.name, tuple(int(d) for d in proto.dims)
    indices, count = onnx.numpy_helper.to_array(proto.indices), math.prod(proto.values.dims)
    if indices.dtype != np.int64 or indices.shape not in ((count,), (count, len(dims))):
        raise InputError(f"sparse initializer `{name}` has indices of shape {list(indices.shape)}", where=where)
    if min(dims, default=0) < 1 or math.prod(dims) >= 2**63:
        raise InputError(f"sparse initializer `{name}` has the shape {list(dims)}", where=where)
    try:
        flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), dims)
    except ValueError as error:
        raise InputError(f"sparse initializer `{name}` has positions outside {list(dims)}", where=where) from error
    if count and not 0 <= flat.min() <= flat.max() < math.prod(dims):
        raise InputError(f"sparse initializer `{name}` has positions outside {list(dims)}", where=where)
    if (np.diff(flat) <= 0).any():
        raise InputError(f"sparse initializer `{name}` has positions that do not ascend, as ONNX asks", where=where)
    return np.asarray(flat, np.int64)


def too_large_to_run(model: ir.Model) -> Coo | None:
    """The largest sparse initializer of `model`, if all of them together cannot be made dense, as onnxruntime does."""
    found = [tensor for _, tensor in tensors(model)]
    if sum(dense_bytes(tensor.proto) for tensor in found) <= DENSE_BYTES:
        return None
    return max(found, key=lambda tensor: dense_bytes(tensor.proto))


def is_huge(tensor: ir.TensorProtocol | None) -> bool:
    """Whether `tensor` cannot be made dense."""
    return isinstance(tensor, Coo) and tensor.is_huge


def _all_graphs(model: ir.Model) -> Iterator[ir.Graph]:
    yield from model.graphs()
    for function in model.functions.values():
        yield from function.subgraphs()


def _number(mark: str) -> int:
    return int(mark.split(":")[1])
