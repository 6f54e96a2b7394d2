"""Pruning that was interrupted ends where it would have ended."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from sparsify import modelio, sensitivity
from sparsify.calibration import Learner
from sparsify.passes.prune import Prune
from sparsify.patterns import Pattern
from sparsify.pruning import FEEDS
from sparsify.resume import Saved
from tests.running import set_constant

WIDTH, LAYERS = 64, 4
MODEL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[B,64] x0) => (float[B,64] x4)
<float[1,1] w0 = {0}, float[1,1] w1 = {0}, float[1,1] w2 = {0}, float[1,1] w3 = {0}, float[1,1] b1 = {0}>
{ a0 = MatMul(x0, w0) x1 = Relu(a0)
  a1 = MatMul(x1, w1) c1 = Add(a1, b1) x2 = Sigmoid(c1)
  a2 = Gemm<transB = 1>(x2, w2) x3 = Add(a2, x1)
  x4 = MatMul(x3, w3) }"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSIFY_CACHE", str(tmp_path))
    return tmp_path / "pruning"


@pytest.fixture
def model(rng: np.random.Generator) -> ir.Model:
    found = ir.from_onnx_text(MODEL)
    for i in range(LAYERS):
        set_constant(found, f"w{i}", rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 8)
    set_constant(found, "b1", rng.standard_normal(WIDTH).astype(np.float32))
    return found


@pytest.fixture
def feeds(rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
    return [{"x0": rng.standard_normal((50, WIDTH)).astype(np.float32)} for _ in range(4)]


def pruned(model: ir.Model, feeds: list[dict[str, np.ndarray]], **options: object) -> tuple[str, list[object]]:
    """The digest of what comes out, and what is told of it."""
    changed = modelio.load(model)
    changed.meta[FEEDS] = feeds
    report = Prune(**{"pattern": Pattern(16, 64), "min_size": 1, **options})(changed)  # type: ignore[arg-type]
    return modelio.digest(changed), [*report.changes, *report.refusals]


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("at", range(1, LAYERS))
def test_interrupted_anywhere_it_ends_with_the_same_bytes(model, feeds, cache, monkeypatch, at, uneven):
    whole = pruned(model, feeds, uneven=uneven)
    assert not [*cache.glob("*")]  # what is done needs no help
    calls = []
    statistics = Learner.statistics

    def interrupted(self: Learner, *arguments: object) -> object:
        calls.append(arguments)
        if len(calls) > at:
            raise KeyboardInterrupt
        return statistics(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Learner, "statistics", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pruned(model, feeds, uneven=uneven)
    assert [*cache.glob("*/*.npz")]
    calls.clear()
    monkeypatch.setattr(Learner, "statistics", lambda self, *a: calls.append(a) or statistics(self, *a))
    monkeypatch.setattr(sensitivity, "measure", None)  # must not be asked for again
    assert pruned(model, feeds, uneven=uneven) == whole
    assert len(calls) == LAYERS - at
    assert not [*cache.glob("*")]


def test_other_data_another_model_or_other_options_have_nothing_to_resume(model, feeds):
    folders = {
        Saved.of(work, one, data).folder
        for work, one, data in [
            (Prune(), model, feeds),
            (Prune(method="obs"), model, feeds),
            (Prune(), model, feeds[:2]),
            (Prune(), model, [{**feeds[0], "x0": feeds[0]["x0"] + 1}, *feeds[1:]]),
        ]
    }
    set_constant(model, "b1", np.zeros(WIDTH, np.float32))
    folders.add(Saved.of(Prune(), model, feeds).folder)
    assert len(folders) == 5


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(p.read_bytes()[:90]), lambda p: p.write_bytes(b"")])
def test_a_damaged_file_only_costs_the_time(tmp_path, damage):
    saved = Saved(tmp_path / "work")
    saved.save("0", {"w": np.eye(3)}, ["a", {"b": 1}])
    arrays, facts = saved.load("0")  # type: ignore[misc]
    assert (arrays["w"] == np.eye(3)).all()
    assert facts == ["a", {"b": 1}]
    damage(saved.folder / "0.npz")
    assert saved.load("0") is None
    assert saved.load("1") is None


def test_a_folder_that_cannot_be_written_is_no_trouble(tmp_path):
    (tmp_path / "work").write_text("a file")
    saved = Saved(tmp_path / "work")
    saved.save("0", {"w": np.eye(3)}, None)
    assert saved.load("0") is None
    saved.clear()
