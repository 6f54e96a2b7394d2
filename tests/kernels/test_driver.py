"""The kernels without Python: on other CPUs under an emulator, and with sanitizers (see driver/)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sparsify.kernels import isas

HERE = Path(__file__).parent
# Sources that CMakeLists.txt compiles for a wider ISA than the architecture's first.
WIDE = ("avx2", "avx512", "neon")


def _run(script: str, *arguments: str | Path) -> str:
    done = subprocess.run(["sh", HERE / script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "0 wrong" in done.stdout
    return done.stdout


def _needs(*tools: str) -> pytest.MarkDecorator:
    missing = [tool for tool in ("cmake", *tools) if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@_needs("aarch64-linux-gnu-g++", "qemu-aarch64")
def test_neon_kernels_agree_with_scalar_under_an_emulator(tmp_path: Path) -> None:
    first, second = _run("run_cross.sh", "aarch64", tmp_path).split("== ")[1:]
    assert "int8_neon_dotprod (neon_dotprod): checked" in first
    assert "int8_neon_dotprod (neon_dotprod): cannot run" in second
    assert "int8_neon (neon): checked" in second
    assert "fp32_panel_neon (neon): checked" in second
    assert "bf16_by_fp32_neon (neon): checked" in second
    for kernel in ("columns_neon", "rows_int8_neon", "quantize_neon"):
        assert f"{kernel} (neon): checked" in second


@pytest.mark.slow
@_needs("c++", "qemu-x86_64", "nm")
def test_a_cpu_runs_no_instruction_that_it_lacks(tmp_path: Path) -> None:
    first, second = _run("run_cross.sh", "x86_64", tmp_path).split("== ")[1:]
    assert "int8_avx2 (avx2): checked" in first
    assert "int8_avx2 (avx2): cannot run" in second
    _assert_wide_objects_bring_no_shared_function(tmp_path / "kernels/CMakeFiles/sparsify_objects.dir")


@pytest.mark.slow
@_needs("c++")
def test_kernels_and_decoding_are_clean_under_sanitizers(tmp_path: Path) -> None:
    assert "5000 changes of them, 0 wrong" in _run("run_sanitized.sh", tmp_path, "150")


@pytest.mark.skipif("avx2" not in isas(), reason="the emulation is for x86 with AVX2")
@_needs("g++")
@pytest.mark.slow
def test_every_kernel_of_x86_agrees_with_scalar_and_is_clean_under_sanitizers(tmp_path: Path) -> None:
    """AVX-512, which this CPU may lack, in plain C++: the whole ladder is checked on every machine."""
    checked = _run("run_sanitized.sh", tmp_path, "20", "emulated")
    assert "cannot run" not in checked
    assert "5000 changes of them, 0 wrong" in checked
    for path in ("avx512_bf16", "avx512_vbmi", "avx512_vnni", "avx512", "avx2_vnni", "avx2"):
        assert f"({path}): checked" in checked


@pytest.mark.slow
@pytest.mark.skipif(not any(shutil.which(f"clang++{v}") for v in ("", "-19", "-18", "-16", "-14")), reason="no clang")
@_needs("sh")
def test_hostile_packed_inputs_are_refused_or_multiplied(tmp_path: Path) -> None:
    """The committed corpus, and a short search from there (docs/security.md says what a long one found)."""
    done = subprocess.run(["sh", HERE / "run_fuzz.sh", tmp_path, "20000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "stat::number_of_executed_units" in done.stderr


def _assert_wide_objects_bring_no_shared_function(folder: Path) -> None:
    """Of functions that several objects define the linker keeps one: baseline.cc must have each of them."""
    wide: dict[str, str] = {}
    baseline: set[str] = set()
    for path in folder.glob("*.o"):
        listed = subprocess.run(["nm", "-C", path], capture_output=True, text=True, check=True).stdout
        weak = {line[19:] for line in listed.splitlines() if line[17:18] == "W" and line[:16].strip()}
        if any(isa in path.name for isa in WIDE):
            wide |= dict.fromkeys(weak, path.name)
        else:
            baseline |= weak
    assert wide, "no object for a wider ISA leaves anything to the linker: does this still look in the right place?"
    assert {name: where for name, where in wide.items() if name not in baseline} == {}
