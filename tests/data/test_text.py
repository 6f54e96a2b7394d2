"""Lines of text as a transformer takes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from sparsify import data
from sparsify.data import TensorSpec
from sparsify.errors import InputError, SparsifyError, UsageError

tokenizers = pytest.importorskip("tokenizers")
WORDS = {"[PAD]": 3, "[UNK]": 1, "[CLS]": 2, "a": 10, "b": 11, "c": 12}
TEXTS = "a b\n\nc c c c\nb zzz\n"


def specs(*names: str, batch: int | str = "n", length: int | str = "t", dtype: str = "int64") -> list[TensorSpec]:
    return [TensorSpec(name, dtype, (batch, length)) for name in names or ("input_ids", "attention_mask")]


def tokenizer(folder: Path, **padding: object) -> data.Reading:
    """One id a word, [CLS] in front."""
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing("[CLS] $A", special_tokens=[("[CLS]", 2)])
    if padding:
        made.enable_padding(**padding)
    made.save(str(folder / "tokenizer.json"))
    return data.Reading(tokenizer=folder / "tokenizer.json")


def texts(folder: Path, content: str = TEXTS, name: str = "t.txt") -> str:
    (folder / name).write_text(content, encoding="utf-8")
    return f"text:{folder / name}"


def test_a_feed_is_padded_to_its_longest_text(tmp_path: Path):
    (feed,) = data.load(texts(tmp_path), specs(), tokenizer(tmp_path))
    assert feed["input_ids"].tolist() == [[2, 10, 11, 3, 3], [2, 12, 12, 12, 12], [2, 11, 1, 3, 3]]
    assert feed["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5, [1, 1, 1, 0, 0]]
    assert feed["input_ids"].dtype == np.int64
    assert feed.origins == tuple(f"{tmp_path / 't.txt'}, line {n}" for n in (1, 3, 4))  # line 2 is empty


def test_agrees_with_the_tokenizer_s_own_padding(tmp_path: Path):
    for side in ("left", "right"):
        reading = tokenizer(tmp_path, direction=side, pad_id=7, pad_type_id=5, pad_token="[X]", length=9)
        own = tokenizers.Tokenizer.from_file(str(reading.tokenizer))
        names = ("input_ids", "attention_mask", "token_type_ids")
        (feed,) = data.load(texts(tmp_path), specs(*names, length=9), reading)
        for row, text in zip(range(3), ("a b", "c c c c", "b zzz"), strict=True):
            expected = own.encode(text)
            assert feed["input_ids"][row].tolist() == expected.ids
            assert feed["attention_mask"][row].tolist() == expected.attention_mask
            assert feed["token_type_ids"][row].tolist() == expected.type_ids


def test_positions_count_tokens_on_either_side_of_padding(tmp_path: Path):
    for side, first in (("left", [0, 0, 0, 1, 2]), ("right", [0, 1, 2, 2, 2])):
        names = ("input_ids", "position_ids", "attention_mask")
        (feed,) = data.load(texts(tmp_path), specs(*names), tokenizer(tmp_path, direction=side))
        assert feed["position_ids"].tolist()[0] == first
        assert feed["position_ids"].tolist()[1] == [0, 1, 2, 3, 4]


def test_types_are_the_model_s(tmp_path: Path):
    (feed,) = data.load(texts(tmp_path), specs(dtype="int32"), tokenizer(tmp_path))
    assert {a.dtype.name for a in feed.values()} == {"int32"}


@pytest.mark.parametrize(
    ("options", "takes", "shapes"),
    [
        (",batch=2", {}, [(2, 5), (1, 3)]),
        (",length=3", {}, [(3, 3)]),
        (",limit=1", {}, [(1, 3)]),
        (",batch=1,length=4,limit=2", {}, [(1, 3), (1, 4)]),
        ("", {"length": 8}, [(3, 8)]),
        (",length=4", {"length": 8}, [(3, 8)]),
        (",limit=2", {"batch": 2}, [(2, 5)]),
        ("", {"batch": 1, "length": 2}, [(1, 2)] * 3),
    ],
)
def test_options_and_fixed_dimensions(tmp_path: Path, options: str, takes: dict, shapes: list):
    found = data.load(texts(tmp_path) + options, specs(**takes), tokenizer(tmp_path))
    assert [feed["input_ids"].shape for feed in found] == shapes
    data.check(found, specs(**takes))


def test_without_a_mask_nothing_is_padded(tmp_path: Path):
    found = data.load(texts(tmp_path), specs("input_ids"), tokenizer(tmp_path))
    assert [feed["input_ids"].tolist()[0] for feed in found] == [[2, 10, 11], [2, 12, 12, 12, 12], [2, 11, 1]]


def test_reads_jsonl(tmp_path: Path):
    lines = "".join(json.dumps({"text": text, "label": 3}) + "\n" for text in ("a", "b\nc"))
    (feed,) = data.load(texts(tmp_path, lines, "t.jsonl"), specs(), tokenizer(tmp_path))
    assert feed["input_ids"].tolist() == [[2, 10, 3], [2, 11, 12]]


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        ("", "t.txt", "no text in it"),
        ("\n \n", "t.txt", "no text in it"),
        ("a\nb", "t.jsonl", "this is no JSON"),
        ('{"txt": "a"}', "t.jsonl", "no object with a `text`"),
        ("[" * 100_000, "t.jsonl", "this is no JSON"),
        ("a" * (2**20 + 1), "t.txt", "line 1 has over 1,048,576 characters"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: str, name: str, words: str):
    with pytest.raises(InputError, match=words) as error:
        data.load(texts(tmp_path, content, name), specs(), tokenizer(tmp_path))
    assert str(tmp_path / name) in error.value.where


def test_what_is_not_utf_8_is_refused(tmp_path: Path):
    (tmp_path / "t.txt").write_bytes(b"a b\n\xff\xfe\n")
    with pytest.raises(InputError, match="no UTF-8"):
        data.load(f"text:{tmp_path / 't.txt'}", specs(), tokenizer(tmp_path))


@pytest.mark.parametrize(
    ("spec", "takes", "kind", "words"),
    [
        ("text:absent.txt", specs(), InputError, "No such file"),
        ("text:t.txt,batch=0", specs(), UsageError, "`batch` is a number above 0"),
        ("text:t.txt,lenght=3", specs(), UsageError, "no option `lenght`"),
        ("text:t.txt", specs("input_ids", "pixel_values"), InputError, "input `pixel_values`"),
        ("text:t.txt", [TensorSpec("input_ids", "int64", ("n", "t", 2))], InputError, "cannot be made from text"),
        ("text:t.txt", specs(batch=2), InputError, "takes 2 texts at a time, and there are 3"),
        ("text:t.txt", None, UsageError, "inputs of the model must be known"),
    ],
)
def test_what_cannot_be_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, takes: list | None, kind: type, words: str
):
    monkeypatch.chdir(tmp_path)
    texts(tmp_path)
    with pytest.raises(kind, match=words) as error:
        data.load(spec, takes, tokenizer(tmp_path))
    assert isinstance(error.value, SparsifyError)
    assert error.value.hint


def test_a_tokenizer_is_needed_and_must_be_one(tmp_path: Path):
    spec = texts(tmp_path)
    with pytest.raises(UsageError, match="text needs a tokenizer") as error:
        data.load(spec, specs())
    assert "--tokenizer" in error.value.hint
    with pytest.raises(InputError, match="no such file"):
        data.load(spec, specs(), data.Reading(tokenizer=tmp_path / "absent.json"))
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(InputError, match=r"this is no tokenizer\.json"):
        data.load(spec, specs(), data.Reading(tokenizer=tmp_path / "bad.json"))


def test_says_which_package_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    reading = tokenizer(tmp_path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UsageError, match="needs the package `tokenizers`") as error:
        data.load(texts(tmp_path), specs(), reading)
    assert "pip install" in error.value.hint
