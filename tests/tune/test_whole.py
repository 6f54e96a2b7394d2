"""What is measured of the whole model beside the times of its layers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sparsify import modelio, runtime
from sparsify.rewrite import Choice
from sparsify.tune import Settings, knapsack, options, whole
from tests import small

DATA = [small.feed(seed, 32) for seed in range(2)]
INT8 = Choice("sparse-int8")


def problem(saved: float) -> options.Problem:
    model = modelio.load(small.mlp())
    names = [layer.name for layer in options.classes(model, DATA[0], Settings(threads=1))[1]]
    left, better = knapsack.Option(Choice(), 1.0 + saved, 0.0), knapsack.Option(INT8, 1.0, 0.1)
    return options.Problem(tuple(names), ((left, better),) * len(names))


def test_the_share_is_that_of_the_whole_for_what_layers_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"base": runtime.Timing.of([30.0]), "candidate": runtime.Timing.of([9.0])}
    monkeypatch.setattr(runtime, "interleave", lambda sessions, *_, **__: {name: times[name] for name in sessions})
    found = problem(2.0)
    share = whole.saved_share(modelio.load(small.mlp()), found, DATA, Settings(threads=1))
    assert share == pytest.approx(0.7 / (2.0 * len(found.names)))


@pytest.mark.parametrize(
    "settings",
    [Settings(threads=1, goal="size"), replace(Settings(threads=1), costs={})],
    ids=["size", "costs of another machine"],
)
def test_there_is_none_where_nothing_is_timed_here(settings: Settings) -> None:
    assert whole.saved_share(modelio.load(small.mlp()), problem(1.0), DATA, settings) is None


def test_there_is_none_where_nothing_pays() -> None:
    model = modelio.load(small.mlp())
    assert whole.saved_share(model, options.Problem(), DATA, Settings(threads=1)) is None
