"""What a search says of the whole model."""

from __future__ import annotations

from sparsify import tune
from sparsify.api.searching import predicted_saving
from sparsify.rewrite import Choice

FIRST, LAST = {"a": Choice("stock-int8")}, {"a": Choice("sparse-int8")}


def trial(plan: dict[str, Choice], saved: float, saved_whole: float | None) -> tune.Trial:
    return tune.Trial(0.1, plan, saved, 0.5, True, (), (), saved_whole)


def test_a_saving_is_predicted_from_what_another_plan_saved_of_the_whole_model() -> None:
    trials = [trial(FIRST, 10.0, 12.0), trial(LAST, 20.0, 99.0)]
    assert predicted_saving(trials, LAST) == 24.0


def test_the_only_plan_tells_of_itself() -> None:
    assert predicted_saving([trial(LAST, 20.0, 22.0)], LAST) == 22.0


def test_where_no_model_was_timed_nothing_is_predicted() -> None:
    assert predicted_saving([trial(LAST, 20.0, None)], LAST) is None
    assert predicted_saving([trial(FIRST, 10.0, 12.0)], LAST) is None
