"""What is installed: one package, one native library, for any Python 3 of one platform."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

# What onnxruntime and kernels/__init__.py look up in the library.
SYMBOLS = ("RegisterCustomOps", "sparsify_isa", "sparsify_isas")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """The wheel of this checkout, built apart from the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    if importlib.util.find_spec("scikit_build_core"):
        pip.append("--no-build-isolation")  # else the build tools would be downloaded every time
    settings = ["--config-settings", f"build-dir={folder / 'build'}"]
    done = subprocess.run(
        [*pip, *settings, "--wheel-dir", str(folder), str(root)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_nothing_but_sparsify_is_installed(names: list[str]):
    assert {name.split("/")[0] for name in names} == {"sparsify", "sparsify_onnx-0.1.0.dist-info"}


def test_one_wheel_serves_every_python_of_a_platform(wheel: Path):
    *_, python, abi, platform = wheel.stem.split("-")
    assert (python, abi) == ("py3", "none")
    assert platform != "any"


def test_every_file_of_ours_is_in_it_but_the_kernels_sources(names: list[str], root: Path):
    built = {"__pycache__", ".so", ".dylib", ".cc", ".h", ".inc"}
    files = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in (("sparsify", root / "sparsify"), ("sparsify/passes", root / "passes"))
        for path in folder.rglob("*")
        if path.is_file() and not built & {path.suffix, *path.parts} and path.name != "CMakeLists.txt"
    }
    assert "sparsify/passes/__init__.py" in files
    assert {name for name in names if name.startswith("sparsify/") and "sparsify_kernels." not in name} == files


def test_the_native_library_is_in_it_and_loads(wheel: Path, tmp_path: Path):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if "sparsify_kernels." in n)
        library = ctypes.CDLL(archive.extract(name, tmp_path))
    assert Path(name).parent.as_posix() == "sparsify/kernels"
    assert all(hasattr(library, symbol) for symbol in SYMBOLS)


@pytest.mark.slow
def test_it_optimises_where_there_is_no_compiler(wheel: Path, tmp_path: Path, digits_model: Path, digits_data: Path):
    """In a fresh environment with nothing else on PATH. Needs a package index for the dependencies."""
    home = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, str(wheel)], check=True)
    out = tmp_path / "out.onnx"
    command = [str(home / "bin" / "sparsify"), "optimize", str(digits_model), "--data", str(digits_data), "-O3"]
    done = subprocess.run(
        [*command, "-o", str(out)],
        env={"PATH": str(home / "bin"), "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert out.exists()
