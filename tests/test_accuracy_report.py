"""The figures of docs/accuracy.md and the page itself, without a model."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("PIL", reason="pictures need the extra `bench`")

from benchmarks import accuracy, accuracy_page, brown, lines, photos
from benchmarks.tasks import TASKS


def test_overlap_of_maps():
    base, other = np.zeros((3, 2, 2)), np.zeros((3, 2, 2))
    base[0], other[0] = [[0.9, 0.6], [0.1, 0.0]], [[0.9, 0.4], [0.7, 0.0]]
    base[1] = 1
    assert photos.overlap(base, other).tolist() == [1 / 3, 0, 1]


@pytest.mark.parametrize(("line", "reading", "edits"), [("kitten", "sitting", 3), ("abc", "", 3), ("a b", "a b", 0)])
def test_wrong_characters(line: str, reading: str, edits: int):
    assert lines.wrong_characters([line], [reading]) == edits / len(line)


def test_brown_is_read_as_it_was_printed():
    tagged = "``/`` He/pps said/vbd ''/'' ,/, ./. why/wrb ?/? ?/?"
    assert brown._plain(tagged) == '`` He said",. why?'.replace("`` ", '"')


def test_no_sample_of_brown_both_calibrates_and_is_judged():
    assert not {*brown.CALIBRATION} & {*brown.JUDGED}
    assert not {*photos.CALIBRATION} & {*photos.JUDGED}


def test_rows_of_tasks_without_int8_keep_real_numbers():
    rows = accuracy.rows()
    assert rows["smollm2 32:64 auto"] == "prune{min_size=1,pattern=32:64,method=auto,levels=0}"
    assert rows["minilm 16:64 uneven"] == "prune{min_size=1,pattern=16:64,method=auto,uneven=true},sparse-int8"


def test_the_page_says_where_auto_was_not_better_and_what_was_not_measured():
    common = {"accuracy": 0.5, "flips": 0.25, "cosine": 0.875, "seconds": 2.0, "cpu_seconds": 3.0, "load": 0.0}
    common |= {"peak_bytes": 2**21, "place": "here"}
    errors = {"layer_errors": {"a": 0.2, "b": 0.1}, "obs_errors": {"a": 0.4, "b": 0.1}, "layer_error": 0.15}
    known = {"mnist fp32": common, "mnist 32:64 auto": common | errors, "mnist 16:64 obs": common | {"setting": "old"}}
    page = accuracy_page.page({"mnist": TASKS["mnist"]}, ["mnist fp32", *known, "mnist 8:64 auto"], known)
    assert "| 50 % zeros, 32:64, int8 | `auto` | 0.5000 | 25.00% | 0.8750 | 0.1500 | 3 s | 2 s | 2 MiB |" in page
    assert "* 32:64 `auto`: lower on 1 of 2 layers; not on `b`; 0.1500 to 0.2500 in the mean." in page
    assert "| 75 % zeros, 16:64, int8 | SparseGPT (`obs`), old |" in page
    assert "Not measured: 8:64 auto." in page
