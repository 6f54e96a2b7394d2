"""Work on other machines: a real Dask scheduler with two workers, which give what this process alone would give."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import sparsify
from sparsify import engines, parallel, runtime
from sparsify.engines import called_in
from sparsify.errors import UsageError
from sparsify.graph import linear_layers
from sparsify.pruning import FEEDS
from sparsify.runtime import batches
from sparsify.runtime.stages import Step
from tests import cluster as tasks
from tests.cluster import Cluster
from tests.spread import calibrated, drifts, pruned, with_the_first_killed

pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("dask"))
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def cluster(started: Cluster) -> Cluster:
    started.complete()
    return started


@pytest.fixture
def model(rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ir.Model:
    monkeypatch.setenv("SPARSIFY_CACHE", str(tmp_path))
    return calibrated(rng)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked to be done elsewhere, by name."""
    names: list[str] = []
    real = parallel._sent

    def noted(others, function, items, count):
        names.append(getattr(getattr(function, "func", function), "__name__", type(function).__name__))
        return real(others, function, items, count)

    monkeypatch.setattr(parallel, "_sent", noted)
    return names


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feeds go to the workers, two a task: they are too small and too few for that to pay."""
    monkeypatch.setattr(parallel, "pays", lambda *_: True)
    monkeypatch.setattr(batches, "BATCH", 2)


def test_the_pruned_model_is_the_same_to_the_byte(model, cluster, sent, eager):
    alone = pruned(model)
    with called_in(cluster.url):
        assert pruned(model) == alone
    assert {"_Passage", "_solve"} <= {*sent}


def test_calibration_is_the_same_when_a_worker_is_killed(model, cluster, sent, eager, monkeypatch):
    alone = pruned(model)
    real = Step.take

    def kill(step: Step, number: int, made: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if number >= 2:  # the first that comes from elsewhere, while others are under way
            cluster.workers[0].send_signal(signal.SIGKILL)
        return real(step, number, made)

    with called_in(cluster.url):
        monkeypatch.setattr(Step, "take", kill)
        assert pruned(model) == alone
    assert "_Passage" in sent
    assert cluster.workers[0].wait(10) == -signal.SIGKILL


def test_one_look_at_the_whole_model_is_the_same(model, cluster, sent, eager):
    values = [layer.x.name for layer in linear_layers(model)]

    def moments() -> dict[str, bytes]:
        found = runtime.second_moments(model, model.meta[FEEDS], values)
        return {name: moment.tobytes() for name, moment in found.items()}

    alone = moments()
    assert len(alone) == 3
    with called_in(cluster.url):
        assert moments() == alone
    assert "_Work" in sent


def test_what_this_machine_does_as_fast_stays_here(model, cluster, sent, monkeypatch):
    monkeypatch.setattr(parallel, "threads", lambda: 2)  # as many as there are workers
    with called_in(cluster.url):
        runtime.second_moments(model, model.meta[FEEDS] * 2, ["b"])
    assert not sent


def test_a_large_function_is_sent_once_a_worker(cluster, monkeypatch):
    """Also to one that comes in the middle of the work, and lacks it then."""
    carried: list[bool] = []
    real = parallel.call
    monkeypatch.setattr(
        parallel, "call", lambda n, payload, i: carried.append(payload is not None) or real(n, payload, i)
    )
    weights = np.arange(2.0**18)
    with called_in(cluster.url):
        carried.clear()
        results = parallel.in_order(partial(tasks.weighted, weights=weights), iter(range(40)))
        assert next(results) == 0
        assert not any(carried)
        cluster.workers[0].kill()
        cluster.complete()
        assert [*results] == [float(item) * weights.sum() for item in range(1, 40)]
    assert sum(carried) >= 1


def test_sensitivities_are_the_same_also_when_a_worker_is_killed(model, cluster, sent):
    alone = drifts(model)

    def kill(done: int, *_: object) -> None:
        if done:
            cluster.workers[0].send_signal(signal.SIGKILL)

    with called_in(cluster.url):
        assert drifts(model) == alone
        assert drifts(model, kill) == alone
    assert "_work" in sent
    assert cluster.workers[0].wait(10) == -signal.SIGKILL


def test_a_worker_killed_in_the_middle_of_a_task_costs_that_task_alone(cluster, tmp_path):
    found, killed = with_the_first_killed(cluster.url, tmp_path)
    assert [square for square, _ in found] == [0, 1, 4, 9]
    assert killed
    # The worker that is left did all, also what the other had begun: five notes of four items.
    assert {pid for _, pid in found} == {p.pid for p in cluster.workers} - {*killed}
    assert len([*tmp_path.iterdir()]) == 5


def test_items_of_unknown_number_come_in_rounds_and_in_order(cluster):
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(10):
            taken.append(i)
            yield i

    with called_in(cluster.url):
        results = parallel.in_order(partial(pow, 3), items())
        assert next(results) == 1
        assert len(taken) < 10  # no more than a round ahead: they may be large
        assert [*results] == [3**i for i in range(1, 10)]


def test_what_a_task_raises_is_raised(cluster):
    with called_in(cluster.url), pytest.raises(ValueError, match="is wrong"):
        [*parallel.in_order(tasks.wrong, range(4))]


def test_results_that_nobody_takes_disturb_nobody(cluster, recwarn):
    with called_in(cluster.url):
        next(results := parallel.in_order(abs, range(20)))
        results.close()
        assert [*parallel.in_order(abs, range(-9, 0))] == [*range(9, 0, -1)]
    assert not [w for w in recwarn if "joblib" in str(w.filename)]


@pytest.mark.slow
def test_work_that_kills_every_worker_ends(cluster):
    with called_in(cluster.url), pytest.raises(UsageError, match="every worker that tried it died"):
        [*parallel.in_order(tasks.deadly, range(2))]


@pytest.mark.slow
def test_a_scheduler_that_goes_away_is_told_in_one_sentence(tmp_path):
    lonely = Cluster(tmp_path)
    try:
        lonely.complete()
        work = partial(tasks.noted, folder=str(tmp_path), asking=os.getpid())
        with called_in(lonely.url):
            results = parallel.in_order(work, range(8))
            next(results)
            lonely.scheduler.kill()
            with pytest.raises(UsageError, match="connection to the other machines was lost"):
                list(results)
            with pytest.raises(UsageError, match="connection to the other machines was lost"):
                list(parallel.in_order(abs, range(4)))
    finally:
        lonely.close()


@pytest.mark.slow
def test_a_scheduler_without_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "PATIENCE", 1)
    lonely = Cluster(tmp_path)
    try:
        deadline = time.monotonic() + 60
        said = ""
        while "no workers" not in said and time.monotonic() < deadline:  # it takes a while until it listens
            with pytest.raises(UsageError) as caught, called_in(lonely.url):
                pass
            said = str(caught.value)
        assert "dask worker tcp://" in said
    finally:
        lonely.close()


def test_workers_without_sparsify_are_left_alone(cluster, monkeypatch):
    monkeypatch.setattr(engines, "DISTRIBUTION", "no-such-distribution")
    with pytest.raises(UsageError, match="workers cannot do the work"), called_in(cluster.url):
        pass
    assert all(worker.poll() is None for worker in cluster.workers)


@pytest.mark.parametrize("scheme", ["dask", "ray"])
def test_nobody_answers(monkeypatch, scheme):
    if scheme == "ray":
        pytest.importorskip("ray")
    monkeypatch.setattr(engines, "PATIENCE", 0.2)
    with pytest.raises(UsageError, match="nobody answers"), called_in(f"{scheme}://127.0.0.1:9"):
        pass


@pytest.mark.parametrize(
    "url",
    ["", "dask", "dask://", "dask://host", "dask://host:x", "dask://:1", "dask://h:0", "http://h:1", "dask://h:1/x"],
)
def test_what_is_no_place(url: str):
    with pytest.raises(UsageError, match="is no place to work at"), called_in(url):
        pass


@pytest.mark.parametrize(
    ("package", "install"), [("distributed", "sparsify-onnx[dask]"), ("ray", "sparsify-onnx[ray]")]
)
def test_a_missing_package_is_named(monkeypatch, package, install):
    monkeypatch.setitem(sys.modules, package, None)
    scheme = package.replace("distributed", "dask")
    with pytest.raises(UsageError, match=f"the package `{package}`") as caught, called_in(f"{scheme}://h:1"):
        pass
    assert caught.value.hint == f"pip install 'sparsify-onnx[{scheme}]'"


def test_a_worker_of_another_version_is_refused(monkeypatch):
    function, arguments, _ = parallel.call("abs", parallel.pickle.dumps(abs), [-1])
    assert function(*arguments) == [1]
    needed = {**arguments[3], "numpy": "0.1"}
    with pytest.raises(UsageError, match=r"numpy .* instead of 0\.1"):
        function(*arguments[:3], needed)


def test_only_work_with_data_is_spread(model):
    with pytest.raises(UsageError, match="only work with data"):
        sparsify.optimize(model, parallel="dask://127.0.0.1:1")
    with pytest.raises(UsageError, match="only sensitivities"):
        sparsify.inspect(model, parallel="dask://127.0.0.1:1")
