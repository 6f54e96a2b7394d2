import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparsify.patterns import Pattern, tightest


@pytest.mark.parametrize("text", ["unstructured", "per-column", "16:64", "2:4", "4x1"])
def test_parses_what_it_prints(text):
    assert str(Pattern.parse(text)) == text


@pytest.mark.parametrize("text", ["", "64", "64:16", "4:4", "0:4", "0:0", "a:b", "-1:4", "2:4:8", "1x1", "0x1", "4x2"])
def test_refuses_what_is_no_pattern(text):
    with pytest.raises(ValueError, match="N"):
        Pattern.parse(text)


_SCORES = hnp.arrays(np.float32, st.tuples(st.integers(1, 21), st.integers(1, 5)), elements=st.integers(0, 3))


@given(_SCORES, st.integers(2, 8).flatmap(lambda m: st.tuples(st.integers(1, m - 1), st.just(m))))
def test_each_block_keeps_its_highest(scores, shape):
    pattern = Pattern(*shape)
    mask = pattern.project(scores)
    for start in range(0, len(scores), pattern.m):
        block, kept = scores[start : start + pattern.m], mask[start : start + pattern.m]
        allowed = -(-pattern.n * len(block) // pattern.m)
        assert (kept.sum(axis=0) == allowed).all()
        order = np.argsort(-block, axis=0, kind="stable")[:allowed]  # ties: the earlier row
        assert np.take_along_axis(kept, order, axis=0).all()
    assert pattern.satisfied(mask)


@given(_SCORES, st.floats(0, 1))
def test_unstructured_keeps_the_highest(scores, sparsity):
    mask = Pattern().project(scores, sparsity)
    keep = scores.size - round(sparsity * scores.size)
    order = np.argsort(-scores.ravel(), kind="stable")[:keep]
    assert mask.sum() == keep
    assert mask.ravel()[order].all()


@given(_SCORES, st.floats(0, 1))
def test_per_column_keeps_the_highest_of_each(scores, sparsity):
    pattern = Pattern.parse("per-column")
    mask = pattern.project(scores, sparsity)
    keep = len(scores) - round(sparsity * len(scores))
    assert (mask.sum(axis=0) == keep).all()
    order = np.argsort(-scores, axis=0, kind="stable")[:keep]
    assert np.take_along_axis(mask, order, axis=0).all()
    assert pattern.oriented
    assert not Pattern().oriented


@given(_SCORES, st.floats(0, 1), st.integers(2, 4))
def test_blocks_are_kept_or_dropped_together_and_the_heaviest_stay(scores, sparsity, width):
    pattern = Pattern(width=width)
    mask = pattern.project(scores, sparsity)
    blocks = [slice(i, i + width) for i in range(0, scores.shape[1], width)]
    kept = np.stack([mask[:, block].all(axis=1) for block in blocks], axis=1)
    assert (kept == np.stack([mask[:, block].any(axis=1) for block in blocks], axis=1)).all()
    assert (~kept).sum() == round(sparsity * kept.size)
    energy = np.stack([np.square(scores[:, block]).sum(axis=1) for block in blocks], axis=1)
    assert energy[kept].min(initial=np.inf) >= energy[~kept].max(initial=0)
    assert pattern.oriented


@given(hnp.arrays(bool, st.tuples(st.integers(1, 21), st.integers(1, 4))), st.integers(2, 8))
def test_tightest_is_satisfied_and_one_less_is_not(mask, m):
    pattern = tightest(mask, m)
    if pattern is None:
        assert not Pattern(m - 1, m).satisfied(mask)
        return
    assert pattern.satisfied(mask)
    assert pattern.n == 1 or not Pattern(pattern.n - 1, m).satisfied(mask)


def test_refuses_scores_it_cannot_order():
    with pytest.raises(ValueError, match="NaN"):
        Pattern(2, 4).project(np.array([[np.nan]]))
    with pytest.raises(ValueError, match="sparsity"):
        Pattern().project(np.ones((2, 2)), 1.5)
