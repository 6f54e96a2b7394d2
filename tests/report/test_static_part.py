"""What changed between the files, in every form of the report: digests, sizes, opsets, zeros of weights, the stamp."""

from __future__ import annotations

import hashlib
import io
import re
from html import unescape
from pathlib import Path

import pytest
from rich.console import Console

from sparsify import api, report
from tests import small


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The report on a candidate with half of its weights zero, another opset, and a stamp that names the base."""
    folder = tmp_path_factory.mktemp("static")
    base = small.save(small.mlp(), folder, "base.onnx")
    other = small.mlp(sparsity=0.5)
    other.opset_import[0].version = 18
    for key, value in (("version", "9.9"), ("source", f"sha256:{hashlib.sha256(base.read_bytes()).hexdigest()}")):
        other.metadata_props.add(key=f"ai.sparsify.{key}", value=value)
    return api.report_of(base, small.save(other, folder, "other.onnx"), small.save_feed(folder))


def written(found: dict, folder: Path, form: str) -> str:
    """The report as people see it, on one line."""
    if form == "terminal":
        console = Console(file=io.StringIO(), width=160)
        report.show(found, console)
        text = console.file.getvalue()
    else:
        report.write(found, folder / f"r{form}")
        page = (folder / f"r{form}").read_text()
        text = unescape(re.sub(r"<style>.*?</style>|<script>.*?</script>|<[^>]+>", " ", page, flags=re.DOTALL))
    return " ".join(text.replace("|", " ").split())


@pytest.mark.parametrize("form", ["terminal", ".md", ".html"])
def test_every_form_has_it(found: dict, tmp_path: Path, form: str) -> None:
    text = written(found, tmp_path, form)
    for side in ("base", "candidate"):
        assert found[side]["sha256"][:12] in text
    sizes = [f"{found[side]['bytes'] / 1e3:.1f} kB" for side in ("base", "candidate")]
    assert f"size {sizes[0]} {sizes[1]}" in text
    assert "opset 17 18" in text
    assert "Sparsify 9.9 made it from this base" in text
    for row in found["changes"]["weights"]:
        before, after = row["zeros"]
        assert f"{before * 100:.1f} % to {after * 100:.1f} %" in text
    assert {row["name"] for row in found["changes"]["weights"]} == {"w1", "w2"}


def test_a_stamp_that_names_another_base_is_told(found: dict, tmp_path: Path) -> None:
    other = {**found, "changes": {**found["changes"], "stamp_source": False}}
    for form in ("terminal", ".md", ".html"):
        assert "from ANOTHER base than this one" in written(other, tmp_path, form)


def test_json_has_every_figure(found: dict) -> None:
    changes = found["changes"]
    assert changes["opsets"][""] == [17, 18]
    assert changes["stamp"]["version"] == "9.9"
    assert changes["stamp_source"] is True
    assert changes["same_weights"] == 2
    assert changes["zeros"][0] < 0.01 < 0.45 < changes["zeros"][1]
