"""Outputs of each kind through the whole audit, and what was skipped never passes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from sparsify.audit import audit
from sparsify.audit.measures import neighbours
from sparsify.errors import InputError, UsageError

RANDOM = np.random.default_rng(0)


def model(text: str) -> ir.Model:
    return ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')


LANGUAGE = """lm (int64[B,T] input_ids, int64[B,T] attention_mask) => (float[B,T,4] logits)
<float[4,4] w = {0, 3, 0, 0, 0, 0, 3, 0, 0, 0, 0, 3, SCALE, 0, 0, 0}> { logits = Gather(w, input_ids) }"""


def test_tokens_behind_the_mask_do_not_count():
    base, other = (model(LANGUAGE.replace("SCALE", s)) for s in ("3", "-3"))
    ids = np.array([[0, 1, 2, 3], [1, 2, 0, 3]])
    feed = {"input_ids": ids, "attention_mask": np.array([[1, 1, 1, 0], [1, 1, 0, 0]])}
    hidden = audit(base, other, [feed]).outputs["logits"]
    assert hidden.kind == "token_logits"
    # Only token 3 is answered otherwise, and it is hidden.
    assert hidden.metrics["token_agreement"].value == hidden.metrics["perplexity_ratio"].value == 1
    assert hidden.flipped == 0
    seen = audit(base, other, [{**feed, "attention_mask": np.ones_like(ids)}]).outputs["logits"]
    assert seen.metrics["token_agreement"].value == 6 / 8
    assert seen.flipped == 2
    with pytest.raises(UsageError, match="no output has `token_agreement`"):
        audit(base, other, [{**feed, "attention_mask": 0 * ids}], budgets=["token_agreement>=0.5"])


def test_perplexity_is_over_the_ids_that_follow():
    base, other = (model(LANGUAGE.replace("SCALE", s)) for s in ("3", "0"))
    feed = {"input_ids": np.array([[2, 3, 0]]), "attention_mask": np.ones((1, 3), np.int64)}
    found = audit(base, other, [feed]).outputs["logits"].metrics["perplexity_ratio"].value
    right, lost = (np.exp(v) / (np.exp(v) + 3) for v in (3, 0))  # of 0 after 3, before and now; 3 after 2 is unchanged
    assert found == pytest.approx(np.exp(-(np.log(lost) - np.log(right)) / 2), rel=1e-6)


def test_embeddings_have_neighbours_and_say_when_not_all_were_kept(monkeypatch: pytest.MonkeyPatch):
    text = "e (float[N,8] x) => (float[N,8] embedding) <float[1] s = {SCALE}> { embedding = FUNCTION(x, s) }"
    base = model(text.replace("SCALE", "1").replace("FUNCTION", "Mul"))
    other = model(text.replace("SCALE", "2").replace("FUNCTION", "Mul"))
    x = RANDOM.standard_normal((60, 8)).astype(np.float32)
    found = audit(base, other, [{"x": x[:25]}, {"x": x[25:]}])
    agreement = found.outputs["embedding"].metrics["neighbour_agreement"]
    assert agreement.value == 1  # only lengths changed
    assert agreement.low == pytest.approx(60 / (60 + 1.959964**2))
    assert not any("neighbours" in note for note in found.notes)
    monkeypatch.setattr(neighbours, "MEMORY", 40 * 8 * 8)
    some = audit(base, other, [{"x": x[:25]}, {"x": x[25:]}])
    assert "`embedding`: neighbours are those among 40 of the 60 samples" in some.notes


def test_maps_and_boxes():
    text = """m (float[N,1,4,4] x, float[N,2,4] b) => (float[N,1,4,4] mask, float[N,2,4] boxes) <float[1] s = {SCALE}> {
      mask = Add(x, s)
      boxes = Add(b, s) }"""
    base, other = (model(text.replace("SCALE", s)) for s in ("0", "0.5"))
    x = RANDOM.random((6, 1, 4, 4)).astype(np.float32)
    b = np.tile(np.array([0, 0, 2, 2], np.float32), (6, 2, 1))
    found = audit(base, other, [{"x": x, "b": b}]).outputs
    assert (found["mask"].kind, found["boxes"].kind) == ("maps", "boxes")
    peak = float(x.max()) - float(x.min())
    assert found["mask"].metrics["psnr_db"].value == pytest.approx(20 * np.log10(peak / 0.5), abs=1e-4)
    # Two squares of side 2, shifted by 1/2 both ways: 1.5^2 / (8 - 1.5^2).
    assert found["boxes"].metrics["box_iou"].value == pytest.approx(2.25 / 5.75)


NOTHING = "n (float[N,2] x) => (float[N,2] y, float[N,2] z) { y = Log(x) z = OTHER(x) }"


def test_an_output_that_is_no_number_in_either_model_was_not_compared():
    x = -np.ones((3, 2), np.float32)
    lost = model(NOTHING.replace("OTHER", "Sqrt"))
    with pytest.raises(InputError, match="nothing could be compared") as error:
        audit(lost, lost, [{"x": x}])
    assert "`y` was skipped: all its elements are NaN or infinite in both models" in error.value.what
    half = model(NOTHING.replace("OTHER", "Neg"))
    found = audit(half, half, [{"x": x}])
    assert found.outputs.keys() == {"z"}
    with pytest.raises(UsageError) as refused:
        audit(half, half, [{"x": x}], budgets=["cosine@y>=0.9"])
    assert refused.value.hint == "that output was skipped"
