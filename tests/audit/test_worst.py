"""The worst samples on the disk: they are data again, and what came out of both models stands beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

import sparsify
from sparsify import api, data, runtime
from sparsify import report as reports
from sparsify.audit import audit, worst
from sparsify.errors import UsageError
from tests import small

TAKES = "(float[BATCH,2] x, string[BATCH] tag) => (float[BATCH,2] y, string[BATCH] t)"
HEAD = f'<ir_version: 8, opset_import: ["" : 17]> g {TAKES}'
BASE = HEAD + "{ y = Identity(x) t = Identity(tag) }"
# A fault that grows with the sample: y is off by x^2.
WRONG = HEAD + "{ s = Mul(x, x) y = Add(x, s) t = Identity(tag) }"


def models(batch: object = "n") -> list[onnx.ModelProto]:
    return [onnx.parser.parse_model(text.replace("BATCH", str(batch))) for text in (BASE, WRONG)]


def feeds(*sizes: int) -> list[data.Feed]:
    """x of sample number i is (i, i), counted over all feeds."""
    numbers = np.split(np.arange(sum(sizes), dtype=np.float32), np.cumsum(sizes)[:-1])
    return [
        data.FileFeed({"x": np.stack([n, n], axis=1), "tag": np.array([f"#{i:g}" for i in n], dtype=object)}, f"f{f}")
        for f, n in enumerate(numbers)
    ]


def test_each_is_data_again_with_what_came_of_it(tmp_path: Path):
    folder = tmp_path / "worst"
    report = audit(*models(), feeds(8, 5), save_worst=folder)
    index = json.loads((folder / "worst.json").read_text())["samples"]
    assert index == [one.to_dict() for one in report.saved]
    assert [one["sample"] for one in index] == list(range(12, 2, -1))  # ten, worst first
    assert (index[0]["feed"], index[0]["row"], index[0]["source"], index[0]["whole"]) == (1, 4, "f1", False)
    assert index[0]["drift"] == {"y": pytest.approx(12.0)}  # |x^2| / |x|
    again = data.load(folder)
    assert [feed["x"].tolist() for feed in again] == [[[n, n]] for n in range(3, 13)]
    assert again[0]["tag"].tolist() == ["#3"]
    outputs = np.load(folder / index[0]["outputs"])
    assert outputs["base/y"].tolist() == [[12, 12]]
    assert outputs["candidate/y"].tolist() == [[156, 156]]
    assert outputs["base/t"].tolist() == ["#12"]
    audit(*models(), again)


def test_a_fixed_batch_is_kept_whole(tmp_path: Path):
    report = audit(*models(batch=4), feeds(4, 4), save_worst=tmp_path / "worst")
    assert all(one.whole for one in report.saved)
    (feed, *_) = data.load(tmp_path / "worst")
    assert feed["x"].shape == (4, 2)
    audit(*models(batch=4), data.load(tmp_path / "worst"))


def test_an_earlier_folder_goes_and_others_stay(tmp_path: Path):
    folder = tmp_path / "worst"
    audit(*models(), feeds(3), save_worst=folder)
    names = {p.name for p in folder.iterdir()}
    assert names == {"000001.npz", "000002.npz", "outputs", "worst.json"}
    audit(*models(), feeds(2), save_worst=folder)
    assert {p.name for p in folder.iterdir()} == {"000001.npz", "outputs", "worst.json"}
    assert [p.name for p in tmp_path.iterdir()] == ["worst"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    (tmp_path / "file").write_text("")
    for name, says in (("mine", "something else"), ("file", "something else"), ("no/where", "does not exist")):
        with pytest.raises(UsageError, match=says):
            audit(*models(), feeds(3), save_worst=tmp_path / name)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_what_fails_leaves_the_earlier_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "worst"
    audit(*models(), feeds(3), save_worst=folder)
    before = (folder / "worst.json").read_bytes()
    monkeypatch.setattr(worst.json, "dumps", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(UsageError, match="No space left"):
        audit(*models(), feeds(5), save_worst=folder)
    assert (folder / "worst.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["worst"]


def test_nothing_drifts_nothing_is_written_but_the_index(tmp_path: Path):
    audit(models()[0], models()[0], feeds(3), save_worst=tmp_path / "worst")
    assert json.loads((tmp_path / "worst" / "worst.json").read_text()) == {"samples": []}


def test_reports_name_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # reports cut what is long
    paths = [small.save(small.mlp(seed), tmp_path, f"{seed}.onnx") for seed in (0, 7)]
    folder = Path("worst")
    report = api.report_of(*paths, small.save_feed(tmp_path), save_worst=folder)
    assert report["saved"]["folder"] == str(folder)
    first = report["drift"]["outputs"]["y"]["per_sample"]["worst"][0]["sample"]
    assert report["saved"]["samples"][0]["sample"] == first
    for suffix in (".html", ".md"):
        written = tmp_path / f"r{suffix}"
        reports.write(report, written)
        assert f"saved as {folder}/{first:06}.npz" in written.read_text().replace("\\", "")  # Markdown escapes the path
    (feed,) = (f for f in data.load(folder) if f.source.name == f"{first:06}.npz")
    outputs = np.load(folder / "outputs" / f"{first:06}.npz")
    for side, path in (("base", paths[0]), ("candidate", paths[1])):
        again = runtime.run(runtime.session(path, threads=1), feed)["y"]
        # One row alone may be summed in another order than among 24: 160 products of up to 3 x 3, float32.
        np.testing.assert_allclose(outputs[f"{side}/y"], again, rtol=0, atol=160 * 9 * 2**-23)
    assert not sparsify.audit(*paths, folder, budget="max_abs<=0")
