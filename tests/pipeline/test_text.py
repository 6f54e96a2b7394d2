"""Pipelines as text: what is read, what is printed back, and what an error points at."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsify import passes
from sparsify.errors import UsageError
from sparsify.passes.prune import Prune
from sparsify.passes.sparse_int8 import SparseInt8
from sparsify.patterns import Pattern
from sparsify.pipeline import parse, to_text

VALUES: dict[type, st.SearchStrategy[object]] = {
    bool: st.booleans(),
    int: st.integers(0, 10**6),
    float: st.floats(0, 1e6, allow_nan=False),
    str: st.text("abcXYZ019-_.:/", min_size=1),
}


def fields_of(kind: type) -> st.SearchStrategy[dict[str, object]]:
    """Any values for the options of simple type; patterns and their like keep their default."""
    types = {f.name: type(f.default) for f in dataclasses.fields(kind)}
    return st.fixed_dictionaries({}, optional={n: VALUES[t] for n, t in types.items() if t in VALUES})


@st.composite
def pipelines(draw: st.DrawFn) -> tuple[passes.Pass, ...]:
    kinds = [passes.resolve(name) for name in draw(st.lists(st.sampled_from(sorted(passes.PASSES)), min_size=1))]
    found = []
    for kind in kinds:
        try:
            found.append(kind(**draw(fields_of(kind))))
        except (UsageError, ValueError):  # options that exclude each other
            found.append(kind())
    return tuple(found)


@given(pipelines())
def test_what_is_printed_is_read_back(pipeline: tuple[passes.Pass, ...]) -> None:
    assert parse(to_text(pipeline)) == pipeline


@given(st.text(alphabet="prunesa-int8{}=,: 0.5\n\t\0é", max_size=40))
def test_any_text_is_read_or_refused_with_a_picture(text: str) -> None:
    try:
        parsed = parse(text)
    except UsageError as error:
        picture = error.hint.splitlines()[-2:]
        assert set(picture[1].strip()) == {"^"}
        # The caret stands under the text or, where something is missing, right behind it.
        assert len(picture[1]) <= len(picture[0]) + 1
    else:
        assert parse(to_text(parsed)) == parsed


def test_reads_options_and_ignores_space() -> None:
    expected = (Prune(pattern=Pattern(32, 64), min_size=10), SparseInt8())
    assert parse("prune{pattern=32:64,min_size=10},sparse-int8") == expected
    assert parse(" prune { pattern = 32:64 , min_size = 10 } , sparse-int8 { } ") == expected


def test_options_may_depend_on_each_other() -> None:
    (pruned,) = parse("prune{pattern=unstructured,sparsity=0.9}")
    assert pruned == Prune(pattern=Pattern(), sparsity=0.9)


@pytest.mark.parametrize(
    ("text", "says", "points_at"),
    [
        ("", "the name of a pass", ""),
        ("prune,", "the name of a pass", ""),
        ("prune,,prune", "the name of a pass", ","),
        ("prune prune", "another pass", "p"),
        ("prune{sparsity=0.5", "never closed", "{"),
        ("prune{sparsity=0.5}}", "another pass", "}"),
        ("prune{sparsity}", "expected `=`", "}"),
        ("prune{sparsity=}", "no value", "}"),
        ("prune{sparsity=0.5 min_size=3}", "expected `,` or `}`", "="),
        ("prune{min_size=1,min_size=2}", "given twice", "min_size"),
        ("proon,sparse-int8", "no pass `proon`", "proon"),
        ("sparse-int8,prune{sparsty=0.5}", "no option `sparsty`", "sparsty=0.5"),
        ("prune{min_size=many}", "is not a whole number", "min_size=many"),
        ("prune{pattern=2to4}", "is not a Pattern", "pattern=2to4"),
    ],
)
def test_errors_point_at_the_culprit(text: str, says: str, points_at: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        parse(text)
    shown, carets = caught.value.hint.splitlines()[-2:]
    start, length = carets.index("^"), carets.count("^")
    assert shown[start : start + length] == points_at
    assert caught.value.where == "--passes"


def test_suggests_the_pass_that_was_meant() -> None:
    with pytest.raises(UsageError) as caught:
        parse("prunee")
    assert "did you mean `prune`?" in caught.value.hint
