"""What -O0 to -O3 run. A level is a text, so that anybody can start from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from enum import Enum
from typing import Any

from sparsify.errors import UsageError
from sparsify.pipeline.text import parse
from sparsify.rewrite import Pass


class Target(str, Enum):
    """What the result may be made of."""

    PORTABLE = "portable"  # function-backed operators: any runtime runs them, ours makes them fast
    STOCK = "stock"  # onnxruntime's own operators only

    __str__ = str.__str__


TARGETS = tuple(str(t) for t in Target)
DEFAULT_LEVEL = 2
LEVEL_WITH_DATA = 3  # what pruning does to the answers can only be told with data

# A rewrite must be at least this many times faster: measurements of one layer repeat to a few per cent.
_MARGIN = "min_speedup=1.05"
_SPARSE_FP32 = f"sparse-fp32{{{_MARGIN}}}"
_SPARSE_INT8 = f"sparse-int8{{min_sparsity=0,{_MARGIN}}}"

_PREPARE = "cleanup,detect,shrink"
_FINISH = "settle-layout,fuse-epilogue,share-quantization"
_PRODUCTS = "cleanup,conv-matmul,detect,shrink"
_SMOOTH = "smooth"  # loses nothing, and int8 loses less after it; it learns from data
_PORTABLE = (
    "cleanup",
    f"{_PRODUCTS},{_SPARSE_FP32},settle-layout,fuse-epilogue",
    # A weight that int8 does not make faster may still gain from its zeros in float.
    f"{_PRODUCTS},{_SMOOTH},{_SPARSE_INT8},{_SPARSE_FP32},{_FINISH}",
    # Not smoothed: of a ViT's IoU of .961 at 48:64 that leaves .949.
    f"{_PRODUCTS},prune,{_SPARSE_INT8},{_SPARSE_FP32},{_FINISH}",
)
_STOCK = (
    "cleanup",
    _PREPARE,
    f"{_PREPARE},{_SMOOTH},stock-int8",
    # onnxruntime's own operators gain nothing from zeros: pruning would cost accuracy and buy no time.
    f"{_PREPARE},{_SMOOTH},stock-int8",
)


def level(number: int, target: str = Target.PORTABLE, *, calibrated: bool = False, **settings: Any) -> tuple[Pass, ...]:
    """The passes of -O`number` for `target`, with `settings` as `with_settings` takes them.

    Args:
        number: 0 to 3.
        target: of `TARGETS`.
        calibrated: whether there will be feeds to learn from; `smooth` is for these only.
        settings: for the passes.

    Raises:
        UsageError: no such level or target.
    """
    check_target(target)
    texts = _STOCK if target == Target.STOCK else _PORTABLE
    if number not in range(len(texts)):
        raise UsageError(f"there is no level {number}", where="-O", hint=f"-O0 to -O{len(texts) - 1}")
    found = with_settings(parse(texts[number]), **settings)
    return found if calibrated else tuple(one for one in found if one.name != _SMOOTH)


def check_target(target: str) -> None:
    """Raise UsageError where there is no such target."""
    if target not in TARGETS:
        raise UsageError(f"there is no target `{target}`", where="--target", hint=f"one of {', '.join(TARGETS)}")


def with_settings(pipeline: Sequence[Pass], **settings: Any) -> tuple[Pass, ...]:
    """The passes with `settings` (`threads`, `rows`, ...) where a pass has that option and nobody set it."""
    given = {name: value for name, value in settings.items() if value is not None}
    return tuple(_with(one, given) for one in pipeline)


def _with(one: Pass, settings: dict[str, Any]) -> Pass:
    unset = {f.name for f in dataclasses.fields(one) if getattr(one, f.name) == f.default}
    chosen = {name: value for name, value in settings.items() if name in unset}
    return dataclasses.replace(one, **chosen) if chosen else one
