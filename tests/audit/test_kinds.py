"""Outputs are told by name, shape and values; people and budgets may say otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from sparsify.audit import kinds
from sparsify.errors import UsageError

RANDOM = np.random.default_rng(0)
IDS = RANDOM.integers(0, 50, (2, 6))
PLAIN = RANDOM.standard_normal((5, 12)).astype(np.float32)
UNITS = PLAIN / np.linalg.norm(PLAIN, axis=1, keepdims=True)
SHARES = np.exp(PLAIN) / np.exp(PLAIN).sum(1, keepdims=True)
BOXES = np.array([[[0, 0, 2, 2], [1, 1, 5, 3]]], np.float32)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *[(n, True) for n in ("logits", "start_logits", "classLogits", "output_probability", "prob", "Softmax:0")],
        *[(n, True) for n in ("scores", "class_scores", "classes")],
        *[(n, False) for n in ("last_hidden_state", "y", "subclass", "class_embedding", "sentence_embedding")],
    ],
)
def test_names_that_say_classes(name: str, expected: bool):
    assert kinds.names_classes(name) is expected


def test_distributions_are_seen_by_their_values():
    rows = np.random.default_rng(0).random((4, 5))
    assert kinds.is_distribution((rows / rows.sum(1, keepdims=True)).astype(np.float32))
    assert not kinds.is_distribution(rows)
    assert not kinds.is_distribution(np.array([[1.5, -0.5]]))
    assert not kinds.is_distribution(np.ones((3, 1)))
    assert not kinds.is_distribution(np.ones((1, 1, 1, 1)))


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("logits", PLAIN, "logits"),
        ("logits", RANDOM.standard_normal((2, 6, 9)), "logits"),  # as many classes as ids: no vocabulary
        ("logits", RANDOM.standard_normal((2, 6, 50)), "token_logits"),
        ("y", SHARES, "probabilities"),
        ("class_scores", RANDOM.random((2, 6, 3)), "scores"),
        ("class_scores", PLAIN, "logits"),
        ("sentence_embedding", PLAIN, "embeddings"),
        ("y", UNITS, "embeddings"),
        ("y", PLAIN, "other"),
        ("last_hidden_state", RANDOM.standard_normal((2, 6, 8)), "other"),
        ("boxes", BOXES, "boxes"),
        ("boxes", BOXES[..., ::-1], "other"),  # not x1, y1, x2, y2
        ("output", RANDOM.random((1, 3, 8, 8)), "maps"),
        ("depth", RANDOM.random((1, 8, 8)), "maps"),
        ("present.0.key", RANDOM.random((1, 3, 8, 8)), "other"),
        ("y", np.float32(3), "other"),
        ("logits", np.ones(4, np.float32), "other"),
    ],
)
def test_kinds_by_name_shape_and_values(name: str, array: np.ndarray, expected: str):
    feed = {"token_type_ids": IDS * 0, "attention_mask": IDS * 0 + 1, "input_ids": IDS}
    assert kinds.decide(name, array, feed, None, ()) == expected


def test_people_and_budgets_say_otherwise():
    assert kinds.decide("logits", PLAIN, {}, "embeddings", ()) == "embeddings"
    assert kinds.decide("y", PLAIN, {}, None, ["top1_agreement", "cosine"]) == "logits"
    assert kinds.decide("y", SHARES, {}, None, ["top1_agreement"]) == "probabilities"
    assert kinds.decide("y", PLAIN, {}, None, ["neighbour_agreement"]) == "embeddings"
    assert kinds.decide("y", PLAIN, {}, None, ["top1_agreement", "psnr_db"]) == "other"  # nothing has both


@pytest.mark.parametrize("kind", sorted(set(kinds.KINDS) - {"other"}))
def test_refuses_what_an_output_cannot_be(kind: str):
    with pytest.raises(UsageError) as error:
        kinds.decide("y", np.ones(3, np.float32), {}, kind, ())
    assert error.value.what == f"output `y` [3] cannot be {kind}"
    assert error.value.hint


def test_refuses_kinds_and_outputs_that_there_are_not():
    for told, what, hint in (
        ({"y": "logit"}, "there is no kind `logit`", "did you mean `logits`?"),
        ({"z": "logits"}, "there is no output `z`", "outputs are y"),
    ):
        with pytest.raises(UsageError) as error:
            kinds.check(told, ["y"])
        assert error.value.what == what
        assert error.value.hint.startswith(hint)
