"""Where work is done: here, or on other machines if it would be done sooner there."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from functools import partial

import pytest

from sparsify import parallel

MIB = 2**20


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What sixteen workers were asked for, by a machine of two cores; they do it at once."""
    asked: list[int] = []

    def sent(others, function, items, count) -> Iterator[int]:
        for item in items:
            asked.append(item)
            yield function(item)

    monkeypatch.setattr(parallel, "threads", lambda: 2)
    monkeypatch.setattr(parallel, "_others", lambda: parallel.Engine("", lambda: 16, list, lambda error: error))
    monkeypatch.setattr(parallel, "_sent", sent)
    return asked


@pytest.mark.parametrize(
    ("workers", "busy", "items", "function", "expected"),
    [
        (16, 10.0, MIB, MIB, True),
        (16, 10.0, 2560 * MIB, 0, False),  # 5 s to pass on what takes 5 s here, and 0.6 s there
        (16, 10.0, 0, 160 * MIB, False),  # each worker needs the function
        (2, 10.0, 0, 0, False),  # no more of them than cores here
    ],
)
def test_work_is_sent_where_it_ends_sooner(monkeypatch, workers, busy, items, function, expected):
    monkeypatch.setattr(parallel, "threads", lambda: 2)
    assert parallel.pays(workers, busy, items, function) is expected


@pytest.mark.parametrize(("worth", "expected"), [(True, [1, 2, 3]), (False, [])])
def test_the_first_item_is_done_here_and_decides(monkeypatch, elsewhere, worth, expected):
    told: list[tuple[float, ...]] = []
    monkeypatch.setattr(parallel, "pays", lambda *facts: told.append(facts) or worth)
    work = partial(operator.mul, 3)
    assert [*parallel.where_it_pays(work, iter(range(4)), 4)] == [0, 3, 6, 9]
    assert elsewhere == expected
    assert [workers for workers, *_ in told] == [16]


def test_one_item_alone_stays(elsewhere):
    assert [*parallel.where_it_pays(abs, iter([-1]), 1)] == [1]
    assert not elsewhere
