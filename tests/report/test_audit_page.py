"""The page of an audit in a real browser: nothing fails or is fetched, it fits a telephone, tables sort and filter."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sparsify import api, report
from sparsify.report import charts
from tests.audit.encoder import encoder, feed
from tests.audit.faults import transposed_weight
from tests.small import save, save_feed

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=3000"),
]
in_browser = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here (Debian's `chromium`)")
# What a reader would do and see, written into the page's title where the test reads it.
PROBE = """<script>{
const state = {};
state.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
// Tables of weights may be moved sideways; no other is cut off.
const boxes = [...document.querySelectorAll(".scroll")].filter((box) => !box.closest("details"));
state.cut = boxes.filter((box) => box.scrollWidth > box.clientWidth).map((box) => box.textContent.trim().slice(0, 40));
const rows = () => [...document.querySelectorAll("#layers tbody tr")];
const figures = () => rows().map((r) => Number(r.cells[2].dataset.v));
document.querySelectorAll("#layers th button")[2].click();
state.falling = figures().every((v, i, all) => i === 0 || all[i - 1] >= v);
document.querySelectorAll("#layers th button")[2].click();
state.rising = figures().every((v, i, all) => i === 0 || all[i - 1] <= v);
const filter = document.getElementById("filter");
filter.value = "l1_ softmax";
filter.dispatchEvent(new Event("input"));
state.shown = rows().filter((r) => !r.hidden).length;
state.count = document.getElementById("shown").textContent;
state.errors = window.failures;
state.fetched = performance.getEntriesByType("resource").length;
parent.postMessage(JSON.stringify(state), "*");
}</script>"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An audit of an encoder in which a weight was transposed."""
    folder = tmp_path_factory.mktemp("page")
    base = encoder()
    candidate, _ = transposed_weight(base)
    for number in range(3):
        save_feed(folder, f"{number}.npz", **feed(number))
    return api.report_of(
        save(base, folder, "base.onnx"),
        save(candidate, folder, "candidate.onnx"),
        folder,
        ["cosine>=0.99"],
        layers=True,
        threads=1,
    )


def page(found: dict[str, Any], folder: Path) -> Path:
    report.write(found, folder / "page.html")
    return folder / "page.html"


def test_the_page_stands_alone_and_escapes_what_it_shows(found: dict[str, Any], tmp_path: Path):
    evil = '</script><b onclick="x">`q`'
    named = {**found, "layers": [{**row, "node": evil} for row in found["layers"]]}
    text = page(named, tmp_path).read_text()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            assert tag not in ("link", "img", "iframe", "b", "base")
            assert not {"src", "href", "onclick", "onload"} & {name for name, _ in attributes}

    Reader().feed(text)
    assert not re.search(r"https?:|@import|url[(]|fetch[(]|XMLHttp", text)
    assert text.count("</script>") == 1


def test_the_page_says_who_did_it(found: dict[str, Any], tmp_path: Path):
    text = page(found, tmp_path).read_text()
    assert "Over the budget" in text
    assert found["attribution"]["suspects"][0] == "l1_up_mm"
    assert "/l1_up_proj/MatMul" in text


@in_browser
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_it(found: dict[str, Any], tmp_path: Path, width: int):
    written = page(found, tmp_path)
    start = "<script>window.failures = []; addEventListener('error', (e) => failures.push(e.message));</script>"
    # Headless windows are at least 500 wide: a frame has the width of a telephone.
    text = written.read_text().replace("<head>", "<head>" + start).replace("</body>", PROBE + "</body>")
    outer = tmp_path / "outer.html"
    outer.write_text(
        "<pre id=out></pre><script>addEventListener('message', (e) => { out.textContent = e.data; });</script>"
        f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{html.escape(text)}"></iframe>'
    )
    shown = html.unescape(_dump(outer, tmp_path).split("</pre>")[0])
    assert '"wide":false' in shown
    assert '"cut":[]' in shown
    assert '"errors":[]' in shown
    assert '"fetched":0' in shown
    assert '"falling":true' in shown
    assert '"rising":true' in shown
    assert '"shown":1,' in shown
    assert f'"count":"1 of {len(found["layers"])}"' in shown


def _dump(file: Path, folder: Path) -> str:
    assert BROWSER
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    done = subprocess.run([*command, file.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def test_a_chart_of_what_never_drifted_or_drifted_without_end():
    row = {"node": "a", "own": 0.0, "accumulated": 0.0}
    flat = charts.depth([row, row], {"threshold": 0.1, "first": None})
    assert flat.stems == ()
    assert flat.first is None
    broken = charts.depth([row, {"node": "b", "own": None, "accumulated": None}], {"threshold": 0.1, "first": "b"})
    assert broken.stems == ((75.0, 0.0),)
    assert broken.first == 75.0


@pytest.mark.parametrize("values", [[0.1, 0.2, 0.2, 0.4], [1e-6, 1e-3, 0.5, None]])
def test_a_histogram_counts_every_sample(values: list[float | None]):
    chart = charts.histogram(values)
    assert chart is not None
    counts = [int(label.split()[0]) for *_, label in chart.bars]
    assert sum(counts) + chart.infinite == len(values)
    assert max(counts) == chart.most


@pytest.mark.parametrize("values", [[], [0.1], [0.2, 0.2], [None, None]])
def test_a_histogram_needs_two_different_samples(values: list[float | None]):
    assert charts.histogram(values) is None
