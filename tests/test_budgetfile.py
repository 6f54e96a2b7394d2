"""Budgets in a file: what is read, and that nothing in it is guessed at."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsify import budgetfile
from sparsify.api.drift import budgets
from sparsify.budget import Budget
from sparsify.errors import UsageError

GOOD = """
# Agreed with the search team.
[[budget]]
metric = "cosine"
at_least = 0.99
reason = "below this ranking suffers"

[[budget]]
metric = "max_abs"
output = "logits>=1 @ x"
at_most = 1
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "budget.toml"
    path.write_text(text)
    return path


def test_reads_budgets_with_their_reasons(tmp_path: Path):
    first, second = budgetfile.read(write(tmp_path, GOOD))
    assert (first, first.reason) == (Budget("cosine", 0.99), "below this ranking suffers")
    assert (second, second.reason) == (Budget("max_abs", 1.0, "logits>=1 @ x"), "")


def test_files_and_expressions_may_be_mixed(tmp_path: Path):
    folder = tmp_path / "a>=1 [x] *"  # a name is no pattern
    folder.mkdir()
    found = budgets(["sqnr_db>=30", str(write(folder, GOOD))])
    assert [b.metric for b in found] == ["sqnr_db", "cosine", "max_abs"]


ONE = '[[budget]]\nmetric = "cosine"\n'
BAD = {
    "no TOML": ("cosine>=0.99", "this is not TOML", "[[budget]]"),
    "not UTF-8": (b"\xff\xfe", "this is not TOML", "[[budget]]"),
    "deep": ("a = " + "[" * 50_000, "this is not TOML", "[[budget]]"),
    "too large": ("#" * 1_000_001, "too large", "1 MB"),
    "empty": ("# nothing yet\n", "there is no budget in it", "[[budget]]"),
    "one table": ('[budget]\nmetric = "cosine"', "list of tables", "[[budget]]"),
    "a list of texts": ('budget = ["cosine>=0.9"]', "list of tables", "[[budget]]"),
    "top-level key": ("[[budgets]]\nx = 1", "no key `budgets`", "did you mean `budget`?"),
    "unknown key": (ONE + "atleast = 0.9", "no key `atleast`", "did you mean `at_least`?"),
    "key like no other": (ONE + "colour = 0.9", "no key `colour`", "known: metric, output"),
    "no metric": ("[[budget]]\nat_least = 1", "`metric` is missing", "cosine"),
    "no bound": (ONE, "one of `at_least` and `at_most`", "worst value"),
    "two bounds": (ONE + "at_least = 0\nat_most = 1", "one of `at_least` and `at_most`", "worst value"),
    "wrong side": (ONE + "at_most = 0.9", "`cosine` is better when it is higher", "write `at_least`"),
    "text for a number": (ONE + 'at_least = "0.9"', "`at_least` is a number, got '0.9'", ""),
    "bool for a number": (ONE + "at_least = true", "`at_least` is a number, got True", ""),
    "number for a text": (ONE + "at_least = 0.9\noutput = 3", "`output` is a text, got 3", ""),
    "unreachable": (ONE + "at_least = 2", "between -1 and 1, got 2", "for example"),
    "NaN": (ONE + "at_least = nan", "between -1 and 1, got nan", "for example"),
    "unknown metric": ('[[budget]]\nmetric = "cosin"\nat_least = 0.9', "no such metric", "did you mean `cosine`?"),
    "twice": ((ONE + "at_least = 0.9\n") * 2, "the same as budget 1", "keep one"),
}


@pytest.mark.parametrize("case", BAD)
def test_refuses_with_what_where_and_a_hint(tmp_path: Path, case: str):
    text, what, hint = BAD[case]
    path = tmp_path / "budget.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as error:
        budgetfile.read(path)
    assert what in error.value.what
    assert hint in error.value.hint
    assert error.value.where.startswith(f"budget file {path}")


@pytest.mark.parametrize("name", ["absent.toml", ""])
def test_a_file_that_cannot_be_read_is_one_error(tmp_path: Path, name: str):
    with pytest.raises(UsageError, match="cannot read"):
        budgetfile.read(tmp_path / name)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_budgets_or_one_error(tmp_path_factory: pytest.TempPathFactory, text: bytes):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(text)
    with contextlib.suppress(UsageError):
        assert budgetfile.read(path)
