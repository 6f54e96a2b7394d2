"""What the levels run, and what settings reach."""

from __future__ import annotations

import pytest

from sparsify.errors import UsageError
from sparsify.pipeline import TARGETS, level, parse, to_text, with_settings


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("number", range(4))
def test_a_level_can_be_printed_and_given_back_as_a_pipeline(number: int, target: str) -> None:
    assert parse(to_text(level(number, target, threads=3, rows=7))) == level(number, target, threads=3, rows=7)


def names(number: int, target: str) -> set[str]:
    return {one.name for one in level(number, target)}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("number", range(4))
def test_with_data_inputs_are_smoothed_before_int8_unless_weights_are_pruned(number: int, target: str) -> None:
    found = [one.name for one in level(number, target, calibrated=True)]
    assert [name for name in found if name != "smooth"] == [one.name for one in level(number, target)]
    int8 = next((name for name in found if name.endswith("int8")), None)
    assert ("smooth" in found) == (int8 is not None and "prune" not in found)
    if "smooth" in found:
        assert found.index("smooth") < found.index(int8)


def test_levels_do_what_they_promise() -> None:
    assert names(0, "portable") == {"cleanup"}
    for lossless in (0, 1):
        assert not {"prune", "sparse-int8"} & names(lossless, "portable")
    assert "sparse-fp32" in names(1, "portable")
    assert "sparse-int8" in names(2, "portable") - names(1, "portable")
    assert "prune" in names(3, "portable") - names(2, "portable")


@pytest.mark.parametrize("number", range(4))
def test_stock_uses_no_operator_of_ours(number: int) -> None:
    assert not {name for name in names(number, "stock") if name.startswith("sparse-")}


def test_every_rewrite_of_a_level_must_pay() -> None:
    for one in level(3, "portable"):
        if one.name.startswith("sparse-"):
            assert getattr(one, "min_speedup") > 1  # noqa: B009 - not every pass has it


def test_settings_reach_only_what_nobody_set() -> None:
    (given, unset, other) = with_settings(parse("sparse-int8{rows=5},sparse-int8,prune"), rows=9, threads=None)
    assert (given, unset, other) == parse("sparse-int8{rows=5},sparse-int8{rows=9},prune")


def test_refuses_levels_and_targets_that_there_are_not() -> None:
    with pytest.raises(UsageError, match="no level -1"):
        level(-1)
    with pytest.raises(UsageError, match="no target `gpu`"):
        level(1, "gpu")
