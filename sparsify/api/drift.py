"""The audit as a program calls it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from sparsify import audit as _audit
from sparsify import budget as budgets
from sparsify import data as feeds
