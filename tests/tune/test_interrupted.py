"""A search that is killed leaves nothing half written, and goes on from what it had done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import sparsify
from sparsify import api, cost, modelio, parallel, sensitivity
from sparsify.cli import main
from sparsify.solvers import admm
from sparsify.tune import candidates
from tests import small
from tests.tune.test_search import DATA, given_times

# Dies without notice once so many steps of the search were kept.
KILLED = """
import os, signal, sys
from sparsify.cli import main
from sparsify.resume import Saved
save, left = Saved.save, [int(sys.argv[1])]
def dying(self, *arguments):
    save(self, *arguments)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
Saved.save = dying
main(sys.argv[2:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_it_writes_nothing_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after = 3  # two sensitivities, and the first layer of a plan
    cache, out = tmp_path / "cache", tmp_path / "out" / "model.onnx"
    monkeypatch.setenv("SPARSIFY_CACHE", str(cache))
    monkeypatch.setattr(cost, "_measured", {})
    monkeypatch.setattr(candidates, "measure", given_times)
    model, data = small.save(small.mlp(), tmp_path), tmp_path / "data"
    for folder in (data, out.parent):
        folder.mkdir()
    for number, feed in enumerate(DATA):
        small.save_feed(data, f"{number}.npz", **feed)
    api.profile(tmp_path / "costs.json", model, data=data, threads=1)
    command = ["optimize", str(model), "-o", str(out), "--data", str(data), "--budget", "cosine>=0.97"]
    command += ["--costs", str(tmp_path / "costs.json"), "--report", str(out.parent / "r.json")]
    killed = subprocess.run([sys.executable, "-c", KILLED, str(after), *command], check=False, env={**os.environ})
    assert killed.returncode == -signal.SIGKILL
    assert [*out.parent.iterdir()] == []
    kept = {path: path.stat().st_mtime_ns for path in cache.glob("pruning/*/*.npz")}
    assert len(kept) == after

    whole = sparsify.optimize(model, data, "cosine>=0.97", costs=tmp_path / "costs.json")
    assert not [*cache.glob("pruning/*")]  # what is done needs no help
    for path in (*kept,):
        assert not path.exists()
    assert main(command) == 0
    assert out.read_bytes() == modelio.serialize(whole.model)


def test_a_layer_that_two_plans_share_is_pruned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSIFY_CACHE", str(tmp_path))
    monkeypatch.setattr(candidates, "measure", given_times)
    solved = []
    real = admm.prune

    def counted(*arguments: object, **options: object) -> object:
        if not options.get("quick"):  # the sensitivities' own
            solved.append(arguments[2:4])
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(admm, "prune", counted)
    result = sparsify.optimize(small.mlp(), DATA, "cosine>=0.97", threads=1, effort=2)
    plans = [t["plan"] for t in result.report["search"]["trials"]]
    roads = set()
    for plan in plans:
        patterns = tuple(choice.partition(" ")[2] for choice in plan.values())
        roads |= {patterns[: end + 1] for end, pattern in enumerate(patterns) if pattern}
    assert len(solved) == len(roads)


def test_sensitivities_go_on_where_they_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSIFY_CACHE", str(tmp_path))
    monkeypatch.setattr(candidates, "measure", given_times)
    whole = api.curve(small.mlp(), DATA, threads=1, effort=0)["points"]
    monkeypatch.setattr(parallel, "threads", lambda: 1)
    real, calls = sensitivity._drifts, []

    def stopped(*arguments: object) -> list[float]:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sensitivity, "_drifts", stopped)
    with pytest.raises(KeyboardInterrupt):
        api.curve(small.mlp(), DATA, threads=1, effort=0)
    assert api.curve(small.mlp(), DATA, threads=1, effort=0)["points"] == whole
    assert len(calls) == 2 + 1  # of two weights the first was known
