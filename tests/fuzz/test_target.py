"""The fuzzing target on its corpus and on some changes of it; `make fuzz` tries many, guided by coverage."""

from __future__ import annotations

import random

import pytest

from tests.fuzz import target

ROUNDS = 12  # changed models for each of the corpus: about 130 in all
STEPS = 3  # changes, one upon the other


def test_nothing_but_answers_and_errors_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("inspection", "optimizer"):
        monkeypatch.setattr(getattr(target, name), "trial", target.samples.trial)  # put back at the end
    target.prepare(monkeypatch.setattr)
    rng = random.Random(0)
    for path in sorted(target.CORPUS.glob("*.onnx")):
        seed = path.read_bytes()
        target.one_input(seed)
        for _ in range(ROUNDS):
            data = seed
            for _ in range(rng.randint(1, STEPS)):
                data = target.mutate(data, rng) or data
            target.one_input(data)
