"""The audit end to end: on small models whose drift is known by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from sparsify.audit import DriftReport, audit
from sparsify.errors import InputError, UsageError

LINEAR = """<ir_version: 8, opset_import: ["" : 17]>
linear (float[N,2] x) => (float[N,2] logits, int64[N] best)
<float[2,2] w = {1, 0, 0, WEIGHT}>
{ logits = MatMul(x, w)
  best = ArgMax<axis = 1, keepdims = 0>(logits) }"""
BASE = LINEAR.replace("WEIGHT", "1")
DRIFTED = LINEAR.replace("WEIGHT", "0.5")

# Rows: d = (0, -x1/2).
X = np.array([[4, 2], [0, 8], [3, 4], [4, 6]], np.float32)


def model(text: str) -> ir.Model:
    return ir.from_onnx_text(text)


def report(**options) -> DriftReport:
    return audit(model(BASE), model(DRIFTED), [{"x": X}], **options)


def test_numbers_by_hand():
    found = report()
    logits, best = found.outputs["logits"], found.outputs["best"]
    assert logits.samples == best.samples == 4
    value = {n: e.value for n, e in logits.metrics.items()}
    cosines = [
        (b @ c) / math.sqrt(b @ b) / math.sqrt(c @ c) for b, c in zip(X.astype(float), X * (1, 0.5), strict=True)
    ]
    # Power 20 + 64 + 25 + 52 = 161, error (4 + 64 + 16 + 36) / 4 = 30; all exact in float32.
    assert value["cosine"] == pytest.approx(np.mean(cosines), rel=1e-14)
    assert value["relative_l2"] == pytest.approx(math.sqrt(30 / 161), rel=1e-14)
    assert value["sqnr_db"] == pytest.approx(10 * math.log10(161 / 30), rel=1e-14)
    assert value["max_abs"] == 4
    # Largest of base: 0, 1, 1, 1; of the candidate 0, 1, 0, 0.
    assert value["top1_agreement"] == 0.5
    assert best.metrics.keys() == {"agreement"}
    assert best.metrics["agreement"].value == 0.5
    assert not logits.exact
    assert any("4 samples" in note for note in found.notes)


def test_says_what_was_left_out_because_it_is_no_number():
    x = X.copy()
    x[1, 0] = np.nan
    found = audit(model(BASE), model(DRIFTED), [{"x": x}])
    # A NaN in a row makes both of its products NaN, in base and candidate.
    assert "`logits`: 2 of 8 elements are NaN or infinite in both and were left out" in found.notes
    assert found.outputs["logits"].mismatches == 0


def test_samples_do_not_depend_on_how_feeds_cut_them():
    whole = report()
    rows = audit(model(BASE), model(DRIFTED), [{"x": X[:1]}, {"x": X[1:]}])
    for name, found in rows.outputs.items():
        assert found.metrics == whole.outputs[name].metrics
        assert found.per_sample.values == whole.outputs[name].per_sample.values
    assert [(s.feed, s.row) for s in rows.outputs["best"].per_sample.worst] == [(1, 1), (1, 2)]


def test_a_model_against_itself_is_exact():
    found = audit(model(BASE), model(BASE), [{"x": X}], budgets=["sqnr_db>=200", "max_abs<=0", "top1_agreement>=1"])
    assert found
    assert all(o.exact for o in found.outputs.values())
    assert found.to_dict()["outputs"]["logits"]["metrics"]["sqnr_db"]["value"] is None  # infinite


def test_verdicts_use_the_bound_that_speaks_against_the_candidate():
    estimate = report().outputs["logits"].metrics
    cosine, relative = estimate["cosine"], estimate["relative_l2"]
    assert cosine.low < cosine.value
    assert relative.value < relative.high
    assert report(budgets=[f"cosine>={cosine.low!r}"])
    assert not report(budgets=[f"cosine>={cosine.value!r}"])
    assert report(budgets=[f"relative_l2<={relative.high!r}"])
    failed = report(budgets=["max_abs<=4", f"relative_l2@logits<={relative.value!r}"])
    assert [v.passed for v in failed.verdicts] == [True, False]
    assert failed.verdicts[1].bound == relative.high
    assert not failed


def test_a_budget_without_output_is_about_every_output_that_has_it():
    found = report(budgets=["agreement>=0.1", "cosine>=0.1"])
    assert [(v.demand, v.output) for v in found.verdicts] == [
        ("agreement>=0.1", "best"),
        ("cosine>=0.1", "logits"),
    ]


def test_the_report_is_json():
    found = json.loads(json.dumps(report(budgets=["cosine>=0.999"], layers=True).to_dict(), allow_nan=False))
    assert found["passed"] is False
    assert found["verdicts"][0]["budget"] == "cosine>=0.999"
    assert found["layers"][0].keys() >= {"node", "op", "value", "own", "accumulated", "share", "effect"}


def test_new_nans_fail_without_any_budget():
    broken = model("""<ir_version: 8, opset_import: ["" : 17]>
        log (float[N,2] x) => (float[N,2] y) { y = Log(x) }""")
    base = model("""<ir_version: 8, opset_import: ["" : 17]>
        same (float[N,2] x) => (float[N,2] y) { y = Identity(x) }""")
    x = np.array([[1, 2], [-1, 3]], np.float32)
    found = audit(base, broken, [{"x": x}])
    assert not found
    assert [(v.demand, v.output, v.bound) for v in found.verdicts] == [("finite", "y", 1.0)]
    assert not audit(base, broken, [{"x": x}], budgets=["cosine>=-1"]).verdicts[1].passed
    assert found.to_dict()["outputs"]["y"]["metrics"]["cosine"]["value"] is None


def test_one_sample_is_said_to_be_one():
    found = audit(model(BASE), model(DRIFTED), [{"x": X[:1]}])
    cosine = found.outputs["logits"].metrics["cosine"]
    assert cosine.low == cosine.value == cosine.high
    assert any("one sample" in note for note in found.notes)


UNBATCHED = """<ir_version: 8, opset_import: ["" : 17]>
total (float[N,2] x) => (float[2] y)
<int64[1] axis = {0}>
{ s = ReduceSum<keepdims = 0>(x, axis)
  y = FUNCTION(s) }"""


def test_an_output_without_the_batch_counts_once_a_feed():
    base, other = (model(UNBATCHED.replace("FUNCTION", f)) for f in ("Identity", "Neg"))
    found = audit(base, other, [{"x": X}, {"x": X[:3]}])
    assert found.outputs["y"].samples == 2
    assert found.outputs["y"].metrics["cosine"].value == -1


PLAIN = """<ir_version: 8, opset_import: ["" : 17]>
plain (float[N,2] x) => (float[N,2] y) { y = FUNCTION(x) }"""


def test_classes_are_claimed_by_a_budget_that_names_the_output():
    base, other = (model(PLAIN.replace("FUNCTION", f)) for f in ("Identity", "Neg"))
    assert "top1_agreement" not in audit(base, other, [{"x": X}]).outputs["y"].metrics
    assert not audit(base, other, [{"x": X}], budgets=["top1_agreement@y>=0.5"])
    with pytest.raises(UsageError, match="no output has `top1_agreement`") as error:
        audit(base, other, [{"x": X}], budgets=["top1_agreement>=0.5"])
    assert "top1_agreement@OUTPUT" in error.value.hint


def test_distributions_are_classes():
    softmax = model(PLAIN.replace("FUNCTION", "Softmax"))
    assert audit(softmax, softmax, [{"x": X}]).outputs["y"].metrics["top1_agreement"].value == 1


def test_refuses_budgets_that_do_not_fit():
    with pytest.raises(UsageError, match="no output `logit`") as error:
        report(budgets=["cosine@logit>=0.9"])
    assert error.value.hint == "did you mean `logits`?"
    with pytest.raises(UsageError, match="no output has `cosine`") as error:
        report(budgets=["cosine@best>=0.9"])
    assert error.value.hint == "measured there: agreement"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (DRIFTED.replace("logits", "scores"), "outputs differ: the base has best, logits; the candidate has best, sco"),
        (DRIFTED.replace("N,2] x", "N,2] z").replace("(x, w)", "(z, w)"), "inputs differ: the base has x; the candid"),
        (
            DRIFTED.replace("float[2,2] w = {1, 0, 0, 0.5}", "float[2,1] w = {1, 0}").replace(
                "float[N,2] l", "float[N,1] l"
            ),
            "output `logits` is float32 [4, 2] in the base but float32 [4, 1] in the candidate",
        ),
    ],
)
def test_refuses_models_of_another_interface(other: str, words: str):
    with pytest.raises(InputError) as error:
        audit(model(BASE), model(other), [{"x": X}])
    assert error.value.what.startswith(words)


def test_refuses_to_pass_when_nothing_was_compared():
    for feeds, words in (([{"x": X[:0]}], "nothing could be compared"), ([], "no feeds")):
        with pytest.raises(InputError, match=words):
            audit(model(BASE), model(DRIFTED), feeds)


SEQUENCE = """<ir_version: 8, opset_import: ["" : 17]>
sequence (float[N,2] x) => (seq(float[N,2]) s OTHER) { s = SequenceConstruct(x) OTHERNODE }"""


def test_outputs_that_are_no_tensors_are_skipped_and_said_so():
    lone = model(SEQUENCE.replace("OTHERNODE", "").replace("OTHER", ""))
    both = model(SEQUENCE.replace("OTHERNODE", "\n y = Neg(x)").replace("OTHER", ", float[N,2] y"))
    with pytest.raises(InputError, match="nothing could be compared"):
        audit(lone, lone, [{"x": X}])
    found = audit(both, both, [{"x": X}])
    assert found.outputs.keys() == {"y"}
    assert any("`s` was skipped" in note for note in found.notes)


def test_checks_the_data_first():
    with pytest.raises(InputError, match="input `x` is float64"):
        audit(model(BASE), model(DRIFTED), [{"x": X.astype(float)}])


def test_takes_paths_and_tells_progress(tmp_path: Path):
    for name, text in (("a", BASE), ("b", DRIFTED)):
        onnx.save(ir.to_proto(model(text)), tmp_path / f"{name}.onnx")
    ticks: list[tuple[str, int, int]] = []
    found = audit(
        tmp_path / "a.onnx",
        str(tmp_path / "b.onnx"),
        [{"x": X}, {"x": X}],
        layers=True,
        progress=lambda *t: ticks.append(t),
    )
    assert ticks == [("outputs", 1, 2), ("outputs", 2, 2), ("layers", 1, 1), ("suspects", 1, 1)]
    assert found.layers
