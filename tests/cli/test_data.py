"""Every kind of `--data`, through the command line: the examples of docs/data.md, and what is refused."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from tests import small
from tests.cli import Run

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
text (int64[n,t] input_ids, int64[n,t] attention_mask) => (float[n] y) {
  product = Mul(input_ids, attention_mask)
  f = Cast<to = 1>(product)
  axis = Constant<value = int64[1] {1}>()
  y = ReduceSum<keepdims = 0>(f, axis) }"""
IMAGES = """<ir_version: 8, opset_import: ["" : 17]>
images (float[n,3,h,w] x) => (float[n,3,1,1] y) { y = GlobalAveragePool(x) }"""
EXAMPLES = re.findall(
    r"^sparsify (audit .*)$", (Path(__file__).parents[2] / "docs" / "data.md").read_text(), re.MULTILINE
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the examples speak of, here; the models are made by `models_for`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    small.save_feed(tmp_path, "samples.npz")
    (tmp_path / "worst").mkdir()
    small.save_feed(tmp_path / "worst", "000041.npz")
    (tmp_path / "worst" / "worst.json").write_text("{}")
    (tmp_path / "feeds").mkdir()
    for seed in (1, 2):
        small.save_feed(tmp_path / "feeds", f"{seed}.npz", **small.feed(seed))
    (tmp_path / "my_feeds.py").write_text("from tests import small\ndef validation():\n    yield small.feed()\n")
    (tmp_path / "reviews.txt").write_text("good\nbad\n")
    (tmp_path / "reviews.jsonl").write_text('{"text": "good"}\n{"text": "bad"}\n')
    toml = re.search(r"```toml\n(.*?)```", (Path(__file__).parents[2] / "docs" / "data.md").read_text(), re.DOTALL)
    assert toml
    (tmp_path / "preprocess.toml").write_text(toml[1])
    return tmp_path


def models_for(source: str) -> None:
    """base.onnx and candidate.onnx here, such as take what `source` gives."""
    proto = small.mlp()
    if source.startswith("text:"):
        tokenizers = pytest.importorskip("tokenizers")
        tokenizers.Tokenizer(tokenizers.models.WordLevel({"good": 1, "bad": 2}, unk_token="bad")).save("tokenizer.json")
        proto = onnx.parser.parse_model(TEXT)
    if source.startswith("images:"):
        image = pytest.importorskip("PIL.Image")
        proto = onnx.parser.parse_model(IMAGES)
        Path("photos").mkdir()
        for name in ("a", "b"):
            image.fromarray(np.full((30, 40, 3), 90, np.uint8)).save(f"photos/{name}.png")
    for name in ("base.onnx", "candidate.onnx"):
        small.save(proto, Path(), name)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_run(run: Run, example: str) -> None:
    arguments = shlex.split(example)
    models_for(arguments[arguments.index("--data") + 1] if "--data" in arguments else "")
    status, _, err = run(*arguments, "--report", "r.json", "--budget", "max_abs<=0")
    assert status == 0
    spoken = "--data" not in arguments or "--save-worst" in arguments
    assert bool(err) == spoken  # a warning, or what was written
    (output,) = json.loads(Path("r.json").read_text())["drift"]["outputs"].values()
    assert output["samples"] >= 2


def test_there_are_examples_of_every_kind() -> None:
    for kind in ("samples.npz", "*.npz", "text:", ".jsonl", "images:", "my_feeds:"):
        assert any(kind in example for example in EXAMPLES)


def test_pickled_objects_are_read_when_trusted(run: Run, tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (string[n] s) => (string[n] y) { y = Identity(s) }'
    )
    model = small.save(proto, tmp_path)
    feed = small.save_feed(tmp_path, s=np.array(["a", "b"], dtype=object))
    status, out, err = run("audit", model, model, "--data", feed)
    assert (status, out) == (3, "")
    assert f"key `s` holds Python objects, and unpickling those runs code that stands in the file ({feed})" in err
    assert "--trust-data" in err
    assert run("audit", model, model, "--data", feed, "--trust-data")[0] == 0


@pytest.mark.parametrize(
    ("command", "source", "status", "says"),
    [
        ("optimize", "text:reviews.txt", 3, "input `x`, float32 [batch, 64], cannot be made from text"),
        ("bench", "images:feeds", 2, "pictures need a preprocessing"),
        ("audit", "absent:feeds", 2, "neither a file `absent:feeds` nor a module `absent`"),
        ("audit", "my_feeds:absent", 2, "has no function `absent`"),
        ("inspect", "images:feeds,batch=x", 2, "`batch` is a number above 0"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_is_wrong_is_one_error(run: Run, command: str, source: str, status: int, says: str) -> None:
    models_for("")
    models = ["base.onnx", "candidate.onnx"] if command == "audit" else ["base.onnx"]
    extra = ["--sensitivity"] if command == "inspect" else []
    code, out, err = run(command, *models, *extra, "--data", source)
    assert (code, out) == (status, "")
    assert says in err
    assert "hint: " in err
