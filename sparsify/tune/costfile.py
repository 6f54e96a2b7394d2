"""Measured times as a file, to be carried from the machine that a model is for to the one that makes it.

    {"schema": "sparsify/costs-1", "threads": 1, "machine": {...}, "versions": {...},
     "layers": [{"shape": [384, 1536], "rows": 512, "biased": true, "activation": "Gelu", "density": 1.0,
                 "residual": false, "dense_ms": 2.1, "ms": {"stock-int8": 1.3, "sparse-int8 16:64": 0.9, ...}}, ...]}

Times are milliseconds, medians in an onnxruntime session.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparsify import ops
from sparsify.convolutions import Window
from sparsify.errors import InputError
from sparsify.files import write_bytes
from sparsify.rewrite import Choice
from sparsify.tune.candidates import Costs, Kind
from sparsify.tune.plan import LOWER

SCHEMA = "sparsify/costs-1"


@dataclass(frozen=True)
class CostFile:
    """What was measured.

    Attributes:
        threads: of the sessions.
        costs: milliseconds, by class of layers.
        place: machine and versions, as reports have them.
    """

    threads: int
    costs: Mapping[Kind, Costs]
    place: Mapping[str, Any]

    def write(self, path: Path) -> None:
        """Write the file: the whole of it or nothing.

        Raises:
            UsageError: it cannot be written.
        """
        layers = [_layer(kind, found) for kind, found in self.costs.items()]
        text = json.dumps({"schema": SCHEMA, "threads": self.threads, **self.place, "layers": layers}, indent=1)
        write_bytes(path, (text + "\n").encode())


def read(path: Path) -> CostFile:
    """The file at `path`.

    Raises:
        InputError: it cannot be read, or is none.
    """
    where = str(path)
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=where) from error
    except ValueError as error:
        raise InputError(f"this is not JSON: {error}", where=where, hint=_HINT) from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise InputError(f"this is no file of costs, whose schema is `{SCHEMA}`", where=where, hint=_HINT)
    try:
        costs = dict(_read_layer(layer) for layer in found["layers"])
        return CostFile(int(found["threads"]), costs, {k: found.get(k) for k in ("machine", "versions")})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"this file of costs makes no sense: {error!r}", where=where, hint=_HINT) from error


_HINT = "`sparsify doctor --profile FILE --model MODEL` writes one"


def _layer(kind: Kind, found: Costs) -> dict[str, Any]:
    return {
        "shape": list(kind.shape),
        "rows": kind.rows,
        "biased": kind.biased,
        "activation": kind.activation.value,
        "density": kind.density,
        "residual": kind.residual,
        "window": None if kind.window is None else asdict(kind.window),
        "dense_ms": found.left,
        "ms": {str(choice): ms for choice, ms in found.by_choice.items()},
    }


def _read_layer(layer: Mapping[str, Any]) -> tuple[Kind, Costs]:
    k, n = (int(size) for size in layer["shape"])
    kind = Kind(
        (k, n),
        int(layer["rows"]),
        bool(layer["biased"]),
        ops.Activation(layer["activation"]),
        float(layer["density"]),
        bool(layer.get("residual", False)),
        _window(layer.get("window")),
    )
    choices = {_choice(text): _time(ms) for text, ms in layer["ms"].items()}
    return kind, Costs(_time(layer["dense_ms"]), choices)


def _window(found: Mapping[str, Any] | None) -> Window | None:
    if found is None:
        return None
    top, left, bottom, right = map(int, found["pads"])
    sizes = {name: int(found[name]) for name in ("taps", "stride", "height", "width")}
    return Window(**sizes, pads=(top, left, bottom, right))


def _choice(text: str) -> Choice:
    found = Choice.parse(text)
    if found.format not in LOWER:
        raise ValueError(f"there is no form `{found.format}`")
    return found


def _time(value: object) -> float:
    ms = float(value)  # type: ignore[arg-type]
    if not 0 < ms < math.inf:
        raise ValueError(f"{value!r} is no time")
    return ms
