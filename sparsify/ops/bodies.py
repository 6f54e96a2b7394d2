"""What the operators of the domain `ai.sparsify` mean, as onnxscript functions over standard ONNX.

These bodies are the specification of the native kernels, the reference of their tests, and what a
runtime without our kernels executes. A runtime inlines a body under the model's opset, so bodies use
only operators whose meaning is the same from opset 11 on, and types that old kernels have; where no
such operator exists (ReduceMin, ReduceMax) there is one body per range of opsets.

Shapes: X [..., K], W [K, N], bias [N], scale [N], Y [..., N].

A row x that holds a NaN or an infinity comes out as NaN in every column, as it mostly would from a dense product,
which meets it as 0 * infinity wherever W is 0. The term sum(x * 0), 0 for any other row, does that; it is subtracted
because onnxruntime fuses a MatMul and an Add into a Gemm that refuses 0 rows.

Float operator:

    Y = (X - sum_k(X * 0)) W + bias

Bfloat16 operator; W bfloat16, activations rounded to the nearest bfloat16, ties to even, when the model runs:

    r = float(bfloat16(X)),  Y = (r - sum_k(r * 0)) W + bias

Products of two bfloat16 are exact in float32, where they are summed. A value that rounds to infinity, from
2^128 - 2^119 on, counts as one. A kernel may take denormals, as operands and as sums, for 0, as CPUs' bf16 units do.

Integer operator; W = w * scale with w int8, activations quantised per row x of X (asymmetric, u8):

    low = min(x, 0),  high = max(x, 0),  span = max(high - low, 1e-30)
    inverse = 255 / span,  z = round(-low * inverse),  s = span / 255 - sum(x * 0)
    q = clip(round(x * inverse) + z, 0, 255)
    Y = float(q w - z * sum_k(w)) * s * scale + bias

Operators that share these rows read q, s and z, as DynamicQuantizeRows gives them, in place of X; Y is the same.

Operators of rows differ in what they do to X, which is nothing: with bfloat16 weights it is not rounded, and with int8
weights it is not quantised, Y = ((X - sum_k(X * 0)) w) * scale + bias.

An activation, or the sum with a residual [..., N], follows in a function that calls one of these.

round() is to nearest even; q w is exact in int32. MatMulInteger is fed w as u8 with zero point 128:
products of u8 and s8 saturate in onnxruntime's kernels for CPUs without VNNI, those of u8 and u8 do not.
"""

# Bodies are ONNX written in Python's syntax: their operands have no Python types.
# mypy: ignore-errors

from __future__ import annotations

from math import pi

from onnx.helper import make_tensor
from onnxscript import opset11, opset13, opset16, opset18, script
from onnxscript.values import Opset

DOMAIN = "ai.sparsify"
VERSION = 1

_sparsify = Opset(DOMAIN, VERSION)
op = opset11
op13 = opset13
op16 = opset16
op18 = opset18

_FLOAT, _UINT8, _INT32, _INT64, _BFLOAT16 = 1, 2, 6, 7, 16  # TensorProto.DataType

# Constants are tensors: the shorter attributes of Constant came with opset 12.
FIRST, SECOND, THIRD, LAST = (make_tensor("c", _INT64, [1], [i]) for i in (0, 1, 2, -1))
END = make_tensor("c", _INT64, [1], [2**31 - 1])  # of a slice that goes to the end
AXIS_0 = make_tensor("c", _INT64, [], [0])
COLUMN = make_tensor("c", _INT64, [2], [-1, 1])
ONE_INT64 = make_tensor("c", _INT64, [], [1])
HIGH_PART = make_tensor("c", _INT64, [], [65536])
TWO_INT32 = make_tensor("c", _INT32, [], [2])
POWERS = make_tensor("c", _INT32, [8], [1, 2, 4, 8, 16, 32, 64, 128])
OFFSET_UINT8 = make_tensor("c", _UINT8, [], [128])
LEADING_ZERO = make_tensor("c", _FLOAT, [1], [0.0])
ZERO, HALF, ONE, OFFSET, LEVELS, TINY, SQRT_2 = (
    make_tensor("c", _FLOAT, [], [v]) for v in (0.0, 0.5, 1.0, 128.0, 255.0, 1e-30, 2**0.5)
)
SQRT_2_OVER_PI, CUBIC = (make_tensor("c", _FLOAT, [], [v]) for v in ((2 / pi) ** 0.5, 0.044715))


@script(_sparsify, default_opset=op)
def RowMin(X):  # [..., K] -> [..., 1]; opset 11 to 17
    return op.ReduceMin(X, axes=[-1], keepdims=1)


@script(_sparsify, default_opset=op)
def RowMax(X):  # [..., K] -> [..., 1]; opset 11 to 17
    return op.ReduceMax(X, axes=[-1], keepdims=1)


@script(_sparsify, default_opset=op18)
def RowMin18(X):  # from opset 18 on axes are an input
    return op18.ReduceMin(X, op18.Constant(value=LAST), keepdims=1)


@script(_sparsify, default_opset=op18)
def RowMax18(X):
    return op18.ReduceMax(X, op18.Constant(value=LAST), keepdims=1)


@script(_sparsify, default_opset=op)
def Gelu(X):  # exact, by erf
    root = op.Constant(value=SQRT_2)
    return X * op.Constant(value=HALF) * (op.Erf(X / root) + op.Constant(value=ONE))


@script(_sparsify, default_opset=op)
def GeluTanh(X):  # its approximation by tanh
    inner = op.Constant(value=SQRT_2_OVER_PI) * (X + op.Constant(value=CUBIC) * X * X * X)
    return X * op.Constant(value=HALF) * (op.Tanh(inner) + op.Constant(value=ONE))


@script(_sparsify, default_opset=op)
def Silu(X):
    return X * op.Sigmoid(X)


@script(_sparsify, default_opset=op)
def DecodeBitmask(mask, values, shape):
    """mask uint8 [ceil(K*N/8)], values [nnz] -> W float32 [K, N]."""
    octets = op.Cast(op.Reshape(mask, op.Constant(value=COLUMN)), to=_INT32)
    powers = op.Constant(value=POWERS)
    bits = op.Mod(op.Div(octets, powers), op.Constant(value=TWO_INT32))
    flat = op.Reshape(bits, op.Constant(value=LAST))
    first = op.Constant(value=FIRST)
    flat = op.Slice(flat, first, op.ReduceProd(shape, keepdims=1), first)
    # A zero bit gathers value 0 of a table led by 0.0, so that no value need exist.
    table = op.Concat(op.Constant(value=LEADING_ZERO), op.Cast(values, to=_FLOAT), axis=0)
    position = op.CumSum(flat, op.Constant(value=AXIS_0)) * flat
    return op.Reshape(op.Gather(table, position, axis=0), shape)


@script(_sparsify, default_opset=op)
def DecodeDelta(gaps, values, shape):
    """gaps uint8|uint16|int32 [n], values [n] -> W float32 [K, N]."""
    count = op.Cast(gaps, to=_INT64)
    position = op.CumSum(count, op.Constant(value=AXIS_0)) - op.Constant(value=ONE_INT64)
    zeros = op.ConstantOfShape(op.ReduceProd(shape, keepdims=1))
    flat = op.ScatterElements(zeros, position, op.Cast(values, to=_FLOAT), axis=0)
    return op.Reshape(flat, shape)


@script(_sparsify, default_opset=op)
def Poison(X, shape):
    """X [..., K] -> [..., 1]: sum(x * 0), which is 0 for a finite row and NaN for any other."""
    first, second = op.Constant(value=FIRST), op.Constant(value=SECOND)
    zeros = op.ConstantOfShape(op.Concat(op.Slice(shape, first, second, first), second, axis=0))
    return op.MatMul(X, zeros)


@script(_sparsify, default_opset=op)
def QuantizeRows(X, shape):
    """X [..., K] -> q uint8 [..., K], s float32 [..., 1], z int32 [..., 1]; shape: K, and what may follow it."""
    zero, levels = op.Constant(value=ZERO), op.Constant(value=LEVELS)
    # onnxruntime leaves the reduced axis of an empty X at K: the slices make it 1, and change nothing otherwise.
    first, second, last = op.Constant(value=FIRST), op.Constant(value=SECOND), op.Constant(value=LAST)
    low = op.Min(op.Slice(RowMin(X), first, second, last), zero)
    high = op.Max(op.Slice(RowMax(X), first, second, last), zero)
    span = op.Max(high - low, op.Constant(value=TINY))
    inverse = levels / span
    zero_point = op.Round(op.Neg(low) * inverse)
    shifted = op.Round(X * inverse) + zero_point
    q = op.Clip(shifted, zero, levels)
    scale = span / levels - Poison(X, shape)
    return op.Cast(q, to=_UINT8), scale, op.Cast(zero_point, to=_INT32)


@script(_sparsify, default_opset=op)
def DynamicQuantizeRows(X):
    """X [..., K] -> q uint8 [..., K], s float32 [..., 1], z uint8 [..., 1]; where s is NaN, q and z mean nothing."""
    last = op.Constant(value=LAST)
    width = op.Slice(op.Shape(X), last, op.Constant(value=END), op.Constant(value=FIRST))
    q, scale, zero_point = QuantizeRows(X, width)
    return q, scale, op.Cast(zero_point, to=_UINT8)


@script(_sparsify, default_opset=op)
def IntegerProduct(q, row_scale, zero_point, W, shape, scale, bias):
    """W int8-valued float32 [K, N], z int32 -> Y float32 [..., N]; the integer operator after the other two steps."""
    offset = op.Constant(value=OFFSET_UINT8)
    w = op.Cast(W + op.Constant(value=OFFSET), to=_UINT8)
    first, second = op.Constant(value=FIRST), op.Constant(value=SECOND)
    k = op.Slice(shape, first, second, first)
    ones = op.Cast(op.ConstantOfShape(k) + op.Constant(value=ONE), to=_UINT8)
    column_sums = op.MatMulInteger(ones, w, None, offset)
    total = op.MatMulInteger(q, w, None, offset) - zero_point * column_sums
    return op.Cast(total, to=_FLOAT) * row_scale * scale + bias


@script(_sparsify, default_opset=op)
def SparseMatMul(X, mask, values, shape, bias):
    return op.MatMul(X - Poison(X, shape), DecodeBitmask(mask, values, shape)) + bias


@script(_sparsify, default_opset=op)
def SparseMatMulDelta(X, gaps, values, shape, bias):
    return op.MatMul(X - Poison(X, shape), DecodeDelta(gaps, values, shape)) + bias


@script(_sparsify, default_opset=op)
def SparseMatMulInt8(X, mask, values, shape, scale, bias):
    q, s, z = QuantizeRows(X, shape)
    return IntegerProduct(q, s, z, DecodeBitmask(mask, values, shape), shape, scale, bias)


@script(_sparsify, default_opset=op)
def SparseMatMulInt8Delta(X, gaps, values, shape, scale, bias):
    q, s, z = QuantizeRows(X, shape)
    return IntegerProduct(q, s, z, DecodeDelta(gaps, values, shape), shape, scale, bias)


@script(_sparsify, default_opset=op)
def SparseMatMulInteger(q, s, z, mask, values, shape, scale, bias):
    """SparseMatMulInt8 of rows that DynamicQuantizeRows gave."""
    zero_point = op.Cast(z, to=_INT32)
    return IntegerProduct(q, s, zero_point, DecodeBitmask(mask, values, shape), shape, scale, bias)


@script(_sparsify, default_opset=op)
def SparseMatMulIntegerDelta(q, s, z, gaps, values, shape, scale, bias):
    zero_point = op.Cast(z, to=_INT32)
    return IntegerProduct(q, s, zero_point, DecodeDelta(gaps, values, shape), shape, scale, bias)


@script(_sparsify, default_opset=op13)
def RoundToBf16(X):
    return op13.Cast(op13.Cast(X, to=_BFLOAT16), to=_FLOAT)


@script(_sparsify, default_opset=op13)
def SparseMatMulBf16(X, mask, values, shape, bias):
    rounded = RoundToBf16(X)
    return op13.MatMul(rounded - Poison(rounded, shape), DecodeBitmask(mask, values, shape)) + bias


@script(_sparsify, default_opset=op13)
def SparseMatMulBf16Delta(X, gaps, values, shape, bias):
    rounded = RoundToBf16(X)
    return op13.MatMul(rounded - Poison(rounded, shape), DecodeDelta(gaps, values, shape)) + bias


@script(_sparsify, default_opset=op)
def SparseMatMulRows(X, values, shape, bias):
    """values [K, N]: W itself. A kernel skips the rows whose input is 0."""
    return op.MatMul(X - Poison(X, shape), values) + bias


@script(_sparsify, default_opset=op13)
def SparseMatMulBf16Rows(X, values, shape, bias):
    """values bfloat16 [K, N]; X is not rounded."""
    return op13.MatMul(X - Poison(X, shape), op13.Cast(values, to=_FLOAT)) + bias


@script(_sparsify, default_opset=op)
def SparseMatMulInt8Rows(X, values, shape, scale, bias):
    """values int8 [K, N]; X is not quantised, and sums are float."""
    return op.MatMul(X - Poison(X, shape), op.Cast(values, to=_FLOAT)) * scale + bias


@script(_sparsify, default_opset=op16)
def SparseMatMulColumns(X, low, high, values, shape, bias):
    """Gather, scale, scatter-add: W is never dense. From opset 16 on (ScatterND adds)."""
    first, second = op16.Constant(value=FIRST), op16.Constant(value=SECOND)
    last = op16.Constant(value=LAST)
    k = op16.Slice(shape, first, second, first)
    n = op16.Slice(shape, second, op16.Constant(value=THIRD), first)
    gaps = op16.Cast(low, to=_INT64) + op16.Cast(high, to=_INT64) * op16.Constant(value=HIGH_PART)
    position = op16.CumSum(gaps, op16.Constant(value=AXIS_0)) - op16.Constant(value=ONE_INT64)
    columns = position / k
    rows = position - columns * k
    tokens = op16.Transpose(op16.Reshape(X - Poison(X, shape), op16.Concat(last, k, axis=0)), perm=[1, 0])
    m = op16.Slice(op16.Shape(tokens), second, op16.Constant(value=THIRD), first)
    picked = op16.Gather(tokens, rows, axis=0)
    column = op16.Constant(value=COLUMN)
    terms = picked * op16.Reshape(values, column)
    zeros = op16.ConstantOfShape(op16.Concat(n, m, axis=0))
    total = op16.ScatterND(zeros, op16.Reshape(columns, column), terms, reduction="add")
    outer = op16.Slice(op16.Shape(X), first, last, first)
    shape_of_y = op16.Concat(outer, n, axis=0)
    return op16.Reshape(op16.Transpose(total, perm=[1, 0]), shape_of_y, allowzero=1) + bias
