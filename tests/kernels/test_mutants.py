"""The emulated check of the AVX-512 kernels (run_sanitized.sh) notices one wrong instruction, constant or offset."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sparsify.kernels import isas

ROOT = Path(__file__).parents[2]
KERNELS, TESTS = Path("sparsify/kernels"), Path("tests/kernels")

# A file of the kernels, what stands there once, and what a slip would make of it.
MUTANTS = [
    (
        "int8_permute_avx512_vbmi.cc",
        "_mm512_permutexvar_epi8(position[g], x)",
        "_mm512_permutexvar_epi8(position[0], x)",
    ),
    ("int8_permute_avx512_vbmi.cc", "q + window[i], in.stride", "q + window[0], in.stride"),
    ("int8_permute_avx512_vbmi.cc", "w + kWidth + 64 * g", "w + kWidth"),
    ("int8_permute_avx512_vbmi.cc", "_mm512_sub_epi32(total, shift)", "_mm512_add_epi32(total, shift)"),
    ("int8_avx512-inl.h", "_mm512_set1_epi16(1)", "_mm512_set1_epi16(2)"),
    ("int8_avx512-inl.h", "kVnni ? 1 : 3, 1, !kVnni", "kVnni ? 1 : 3, 1, false"),
    ("bf16_permute_avx512.cc", "_mm512_loadu_si512(x + r * stride + kRegister)", "_mm512_loadu_si512(x + r * stride)"),
    ("bf16_permute_avx512.cc", "_mm512_set1_epi16(0x7F80)", "_mm512_set1_epi16(0x7F00)"),
    ("quantize_avx512.h", "0, 4, 8, 12, 1, 5", "0, 4, 8, 12, 5, 1"),
    ("quantize_avx512.h", "_mm512_reduce_min_ps", "_mm512_reduce_max_ps"),
    ("quantize_avx512.h", "_mm512_shuffle_f32x4(half, half, 0xB1)", "_mm512_shuffle_f32x4(half, half, 0x4E)"),
    ("plain_steps.cc", "rows[j * stride + c]", "rows[c]"),
    ("vector_avx512.h", "_mm512_cvtepi8_epi32", "_mm512_cvtepu8_epi32"),
    ("vector_avx512.h", "_mm512_mullo_epi32(a, b)", "_mm512_add_epi32(a, b)"),
    ("vector_avx512.h", "_mm512_fmadd_ps(a, b, c)", "_mm512_fmadd_ps(a, b, a)"),
]


def _checked(build: Path) -> subprocess.CompletedProcess[str]:
    made = subprocess.run(
        ["cmake", "--build", build, "--target", "driver"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout[-4000:] + made.stderr[-4000:]
    return subprocess.run([build / "driver", "avx512_bf16", "20"], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif("avx2" not in isas(), reason="the emulation is for x86 with AVX2")
@pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("g++") is None, reason="no cmake or g++")
def test_mutants_of_avx512_kernels_are_noticed(tmp_path: Path) -> None:
    for folder in (KERNELS, TESTS / "driver", TESTS / "fuzz"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    build, driver = tmp_path / "build", tmp_path / TESTS / "driver"
    emulation = driver / "emulated_avx512.h"
    options = [f"-DSPARSIFY_EMULATE_AVX512={emulation}", "-DSPARSIFY_AVX_VNNI_AS_AVX512=ON"]
    subprocess.run(["cmake", "-S", driver, "-B", build, *options], check=True, capture_output=True)
    whole = _checked(build)
    assert whole.returncode == 0, whole.stdout
    missed = []
    for name, right, wrong in MUTANTS:
        file = tmp_path / KERNELS / name
        source = file.read_text()
        assert source.count(right) == 1, (name, right)
        file.write_text(source.replace(right, wrong))
        if _checked(build).returncode == 0:
            missed.append((name, wrong))
        file.write_text(source)
    assert not missed
