"""A reader that stops reading, as `head` does, costs nobody the result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import small


def test_the_model_is_written_though_nobody_reads_the_tables(tmp_path: Path) -> None:
    model, out = small.save(small.mlp(), tmp_path), tmp_path / "out.onnx"
    steps = "cleanup,sparse-int8"
    command = [sys.executable, "-m", "sparsify", "optimize", str(model), "--passes", steps, "-o", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.close()
    process.wait(timeout=120)
    assert out.exists()
