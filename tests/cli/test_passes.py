"""sparsify passes and sparsify doctor"""

from __future__ import annotations

from tests.cli import Run


def test_passes(run: Run) -> None:
    status, out, err = run("passes")
    assert (status, err) == (0, "")
    for name in ("cleanup", "prune", "sparse-int8", "stamp"):
        assert name in out


def test_passes_explains_one(run: Run) -> None:
    _, out, _ = run("passes", "prune")
    for expected in ("When it refuses:", "pattern", "Pattern", "32:64", "min_size", "int", "4096"):
        assert expected in out


def test_doctor(run: Run) -> None:
    status, out, _ = run("doctor")
    assert status == 0
    for expected in ("CPU", "onnxruntime", "ISA path chosen", "as fast"):
        assert expected in out
