"""The passes, one a file. Nothing is imported before it is asked for by name."""

from __future__ import annotations

import difflib
from importlib import import_module

from sparsify.errors import UsageError
from sparsify.rewrite import Pass

PASSES: dict[str, str] = {
    "cleanup": "sparsify.passes.cleanup:Cleanup",
    "conv-matmul": "sparsify.passes.conv_matmul:ConvMatMul",
    "detect": "sparsify.passes.detect:Detect",
    "dynamic-sparse": "sparsify.passes.dynamic_sparse:DynamicSparse",
    "fuse-epilogue": "sparsify.passes.fuse_epilogue:FuseEpilogue",
    "prune": "sparsify.passes.prune:Prune",
    "share-quantization": "sparsify.passes.share_quantization:ShareQuantization",
    "settle-layout": "sparsify.passes.settle_layout:SettleLayout",
    "shrink": "sparsify.passes.shrink:Shrink",
    "smooth": "sparsify.passes.smooth:Smooth",
    "sparse-bf16": "sparsify.passes.sparse_bf16:SparseBf16",
    "sparse-fp32": "sparsify.passes.sparse_fp32:SparseFp32",
    "sparse-int8": "sparsify.passes.sparse_int8:SparseInt8",
    "stamp": "sparsify.passes.stamp:Stamp",
    "stock-int8": "sparsify.passes.stock_int8:StockInt8",
    "stock-nbits": "sparsify.passes.stock_nbits:StockNBits",
}


def resolve(name: str) -> type[Pass]:
    """The pass called `name`.

    Raises:
        UsageError: there is none.
    """
    if name not in PASSES:
        close = difflib.get_close_matches(name, PASSES, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"passes are {', '.join(PASSES)}"
        raise UsageError(f"there is no pass `{name}`", hint=hint)
    module, _, cls = PASSES[name].partition(":")
    found: type[Pass] = getattr(import_module(module), cls)
    return found
