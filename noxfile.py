"""The versions that pyproject.toml promises, tried: `nox` where Pythons 3.10 to 3.14 are installed.

Tests run against an installed wheel, the same one in every session, from a folder without the sources.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nox

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
DEPENDENCIES = PROJECT["dependencies"]
EXTRAS = PROJECT["optional-dependencies"]
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
ONNXRUNTIMES = ["1.17.0", "1.18.1", "1.19.2", "1.20.1", "1.21.1", "1.22.1", "1.23.2", "1.24.4"]
TESTED_WITH = [need for extra in ("dev", "text", "images") for need in EXTRAS[extra] if "sparsify-onnx" not in need]
BUILDS = ["tests/test_wheel.py", "tests/kernels/test_driver.py"]  # they compile the sources, and need them
LEFT_OUT = ["sparsify", "passes", "build", "dist"]  # the wheel brings what is in them

_built: list[str] = []  # the wheel of this run

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False


@nox.session(python=PYTHONS[:3])
def oldest(session: nox.Session) -> None:
    """Every dependency at its lower bound; later Pythons have no wheels of some."""
    session.install(*(bound.replace(">=", "==") for bound in DEPENDENCIES), *TESTED_WITH)
    _test(session)


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """Every dependency as new as there is."""
    session.install(*DEPENDENCIES, *TESTED_WITH)
    _test(session)


@nox.session(python="3.11")
@nox.parametrize("version", ONNXRUNTIMES)
def onnxruntime(session: nox.Session, version: str) -> None:
    """The native library loads, and computes the same, in every onnxruntime."""
    numpy = "numpy<2" if version < "1.19" else "numpy"  # those were built against NumPy 1
    session.install(*DEPENDENCIES, *TESTED_WITH, f"onnxruntime=={version}", numpy)
    _test(session, "tests/test_ops.py", "tests/runtime", "tests/kernels")


def _test(session: nox.Session, *chosen: str) -> None:
    session.install("--no-deps", "--force-reinstall", _wheel(session))
    folder = Path(session.create_tmp())
    for entry in HERE.iterdir():
        link = folder / entry.name
        if entry.name not in LEFT_OUT and not entry.name.startswith(".") and not link.exists():
            link.symlink_to(entry)
    session.chdir(folder)
    ignored = [f"--ignore={path}" for path in BUILDS]
    session.run("python", "-m", "pytest", "-p", "no:cacheprovider", *ignored, *(session.posargs or chosen))


def _wheel(session: nox.Session) -> str:
    """Built once a run: its tag names the platform and no Python."""
    if not _built:
        folder = tempfile.mkdtemp()
        session.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, str(HERE))
        _built.extend(map(str, Path(folder).glob("*.whl")))
    return _built[0]
