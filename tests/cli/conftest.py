"""What tests of the command line share: a model, its data, and a way to run a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsify.cli import main
from tests import small
from tests.cli import Run


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSIFY_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small.save(small.mlp(), tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return small.save_feed(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line: exit code, stdout, stderr."""

    def _run(*arguments: object) -> tuple[int, str, str]:
        status = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return _run
