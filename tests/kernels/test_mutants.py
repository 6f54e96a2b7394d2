"""The driver's check of the AVX-512 kernels notices one wrong instruction, constant or offset.

It does so emulated, as run_sanitized.sh runs it, and for what is written in assembly on a CPU that has it.
"""

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
    ("int8_steps_avx512.h", "_mm512_permutexvar_epi8(position[g], x)", "_mm512_permutexvar_epi8(position[0], x)"),
    ("int8_steps_avx512.h", "w + kWidth + 64 * g", "w + kWidth"),
    ("int8_permute_avx512_vbmi.cc", "q + *window, stride", "q + *windows, stride"),
    ("int8_permute_avx512_vbmi.cc", "_mm512_sub_epi32(_mm512_setzero", "_mm512_add_epi32(_mm512_setzero"),
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
MUTANTS_OF_ASSEMBLY = [
    ("tiles_avx512.h", '#define SPARSIFY_ROW_2 "(%[q],%[s],2)"', '#define SPARSIFY_ROW_2 "(%[q],%[s])"'),
    ("tiles_avx512.h", '" %[x], %[p1], %["', '" %[x], %[p0], %["'),
    ("tiles_avx512.h", "vmovdqu64 64", "vmovdqu64 0"),
    ("tiles_avx512.h", '[w1] "v"(w[1])', '[w1] "v"(w[0])'),
    ("tiles_avx512.h", "four(q + 4 * s, s", "four(q, s"),
]


def _checked(build: Path) -> subprocess.CompletedProcess[str]:
    made = subprocess.run(
        ["cmake", "--build", build, "--target", "driver"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout[-4000:] + made.stderr[-4000:]
    return subprocess.run([build / "driver", "avx512_bf16", "20"], capture_output=True, text=True, check=False)


def _survivors(folder: Path, mutants: list[tuple[str, str, str]], *options: str) -> list[tuple[str, str]]:
    """Those mutants with which the driver, built in `folder` from a copy of all sources, finds nothing wrong."""
    for part in (KERNELS, TESTS / "driver", TESTS / "fuzz"):
        shutil.copytree(ROOT / part, folder / part)
    build = folder / "build"
    subprocess.run(["cmake", "-S", folder / TESTS / "driver", "-B", build, *options], check=True, capture_output=True)
    whole = _checked(build)
    assert whole.returncode == 0, whole.stdout
    survivors = []
    for name, right, wrong in mutants:
        file = folder / KERNELS / name
        source = file.read_text()
        assert source.count(right) == 1, (name, right)
        file.write_text(source.replace(right, wrong))
        if _checked(build).returncode == 0:
            survivors.append((name, wrong))
        file.write_text(source)
    return survivors


_needs_a_compiler = pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which("g++") is None, reason="no cmake or g++"
)


@pytest.mark.slow
@pytest.mark.skipif("avx2" not in isas(), reason="the emulation is for x86 with AVX2")
@_needs_a_compiler
def test_mutants_of_avx512_kernels_are_noticed(tmp_path: Path) -> None:
    emulation = ROOT / TESTS / "driver" / "emulated_avx512.h"
    options = (f"-DSPARSIFY_EMULATE_AVX512={emulation}", "-DSPARSIFY_AVX_VNNI_AS_AVX512=ON")
    assert not _survivors(tmp_path, MUTANTS, *options)


@pytest.mark.slow
@pytest.mark.skipif("avx512_bf16" not in isas(), reason="assembly is checked where it runs")
@_needs_a_compiler
def test_mutants_of_assembly_are_noticed(tmp_path: Path) -> None:
    assert not _survivors(tmp_path, MUTANTS_OF_ASSEMBLY)
