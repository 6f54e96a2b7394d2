"""Models side by side: latency and size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsify import modelio
from sparsify.api import facts
from sparsify.api.samples import DataSource, read
from sparsify.benchmark import bench as measure


