"""Every kind of source, against packages made here and a server on this machine."""

import base64
import hashlib
import os
import shutil
import socket
import subprocess
import zipfile
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from kontrast.data.sources import Address, Debian, Installed, Npm, SourcePackage, Wheel, download
from kontrast.data.unpack import Selection, SourceError
from kontrast.errors import InputError


class Short(BaseHTTPRequestHandler):
    """Announces more than it sends."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"half")

    def log_message(self, *_):
        pass


class Cut(Short):
    """Breaks the connection within the answer."""

    def do_GET(self):
        super().do_GET()
        self.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def taken(tmp_path):
    """What a source writes, by path."""

    def taken(source, *patterns):
        into = tmp_path / "into"
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir()
        source.take([Selection(pattern) for pattern in patterns], into)
        return {path.relative_to(into).as_posix(): path.read_bytes() for path in into.rglob("*") if path.is_file()}

    return taken


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a shell script of that name before all other programs."""

    def program(name, script):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")

    return program


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_an_address_gives_the_file_under_its_own_name(tmp_path, serve, taken):
    (tmp_path / "a.bin").write_bytes(b"content")
    address = Address(serve(tmp_path), "?download=1")
    assert taken(address, "usr/share/a.bin") == {"usr/share/a.bin": b"content"}


def test_an_address_without_the_file_says_404(tmp_path, serve, taken):
    with pytest.raises(SourceError, match=r"a\.bin: .*404"):
        taken(Address(serve(tmp_path)), "a.bin")


@pytest.mark.parametrize("handler", [Short, Cut])
def test_a_download_that_breaks_off_is_no_download(handler, serve, taken):
    with pytest.raises(SourceError, match=r"a\.bin: 4 of 100 bytes arrived"):
        taken(Address(serve(handler)), "a.bin")


def test_nobody_at_the_address_is_said_so(taken):
    with pytest.raises(SourceError, match="refused"):
        taken(Address("http://127.0.0.1:9"), "a.bin")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_no_fault_of_the_network(tmp_path, serve):
    (tmp_path / "a.bin").write_bytes(bytes(1 << 20))
    with pytest.raises(OSError, match="No space left"):
        download(f"{serve(tmp_path)}/a.bin", Path("/dev/full"))


def test_an_installed_package_is_read_without_being_imported(tmp_path, monkeypatch, taken):
    (tmp_path / "bomb_package").mkdir()
    (tmp_path / "bomb_package" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "bomb_package" / "a.bin").write_bytes(b"content")
    (tmp_path / "bomb_package-2.0.dist-info").mkdir()
    (tmp_path / "bomb_package-2.0.dist-info" / "METADATA").write_text("Name: bomb-package\nVersion: 2.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    for version in (None, "2.0"):
        found = taken(Installed("bomb_package", version), "bomb_package/a.bin")
        assert found == {"bomb_package/a.bin": b"content"}
    with pytest.raises(SourceError, match=r"no file bomb_package/b\.bin"):
        taken(Installed("bomb_package"), "bomb_package/b.bin")
    with pytest.raises(SourceError, match=r"version 2\.0 is installed, and 1\.0 is pinned"):
        taken(Installed("bomb_package", "1.0"), "bomb_package/a.bin")


def test_a_package_without_a_version_is_read_where_none_is_asked_for(tmp_path, monkeypatch, taken):
    (tmp_path / "bare_package").mkdir()
    (tmp_path / "bare_package" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert taken(Installed("bare_package"), "bare_package/__init__.py") == {"bare_package/__init__.py": b""}
    with pytest.raises(SourceError, match="version unknown is installed"):
        taken(Installed("bare_package", "1.0"), "bare_package/__init__.py")


def test_a_package_that_is_not_installed_is_said_so(taken):
    with pytest.raises(SourceError, match="not installed"):
        taken(Installed("no_such_package"), "a")


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel made-package 1.0 that pip finds, and no other."""
    metadata = b"Metadata-Version: 2.1\nName: made-package\nVersion: 1.0\n"
    tags = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {"made_package/a.bin": b"content", "made_package-1.0.dist-info/METADATA": metadata}
    files["made_package-1.0.dist-info/WHEEL"] = tags
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(value).digest()).decode().rstrip('=')},{len(value)}\n"
        for name, value in files.items()
    )
    path = tmp_path / "made_package-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in (files | {"made_package-1.0.dist-info/RECORD": record.encode()}).items():
            archive.writestr(name, value)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    return path


def test_a_wheel_is_fetched_by_pip_and_its_digest_is_checked(wheel, taken):
    known = sha256(wheel.read_bytes())
    assert taken(Wheel("made-package==1.0", known), "made_package/a.bin") == {"made_package/a.bin": b"content"}
    with pytest.raises(InputError, match=rf"must have SHA-256 {'0' * 64}, and has {known}"):
        taken(Wheel("made-package==1.0", "0" * 64), "made_package/a.bin")


def test_a_wheel_that_pip_does_not_find_is_said_so(wheel, taken):
    with pytest.raises(SourceError, match="No matching distribution"):
        taken(Wheel("made-package==2.0"), "made_package/a.bin")


def test_a_source_package_is_read_from_the_index_and_nothing_of_it_runs(tmp_path, serve, taken, tarred, monkeypatch):
    archive = tarred({"made-1.0/setup.py": b"raise SystemExit('run')", "made-1.0/data/a.nrrd": b"content"})
    (tmp_path / "simple" / "made").mkdir(parents=True)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "made-1.0.tar.gz").write_bytes(archive)
    page = f'<a href="../../files/made-1.0.tar.gz#sha256={sha256(archive)}">made-1.0.tar.gz</a>'
    (tmp_path / "simple" / "made" / "index.html").write_text(f'<a href="/other-1.0.tar.gz">other</a>{page}')
    monkeypatch.setenv("PIP_INDEX_URL", f"{serve(tmp_path)}/simple/")
    source = SourcePackage("made", "made-1.0.tar.gz", sha256(archive))
    assert taken(source, "made-1.0/data/*.nrrd") == {"made-1.0/data/a.nrrd": b"content"}
    with pytest.raises(SourceError, match=r"no file made-2\.0"):
        taken(SourcePackage("made", "made-2.0.tar.gz", ""), "a")
    with pytest.raises(InputError, match=sha256(archive)):
        taken(SourcePackage("made", "made-1.0.tar.gz", "0" * 64), "made-1.0/data/*.nrrd")


def test_an_npm_package_is_fetched_by_npm_and_its_digest_is_checked(tmp_path, program, taken, tarred):
    archive = tarred({"package/a.json": b"content", "package/index.js": b"!"})
    (tmp_path / "made.tgz").write_bytes(archive)
    program(
        "npm",
        f'[ "$4" = made@1.0.0 ] || {{ echo "npm error 404\nnpm error log" >&2; exit 1; }}\ncp {tmp_path}/made.tgz .',
    )
    assert taken(Npm("made@1.0.0", sha256(archive)), "package/a.json") == {"package/a.json": b"content"}
    with pytest.raises(InputError, match=sha256(archive)):
        taken(Npm("made@1.0.0", "0" * 64), "package/a.json")
    with pytest.raises(SourceError, match=r"^npm error 404$"):
        taken(Npm("other@1.0.0", ""), "package/a.json")


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb on this system")
def test_a_debian_package_is_unpacked_beside_and_not_installed(tmp_path, program, taken):
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        "Package: made\nVersion: 1\nArchitecture: all\nMaintainer: T <t@example.org>\nDescription: made\n"
    )
    (root / "usr" / "share").mkdir(parents=True)
    (root / "usr" / "share" / "a.bin").write_bytes(b"content")
    (root / "usr" / "share" / "b.bin").symlink_to("a.bin")
    subprocess.run(["dpkg-deb", "-b", str(root), str(tmp_path / "made_1_all.deb")], check=True, capture_output=True)
    program("apt-get", f'[ "$3" = made ] || {{ echo "E: Unable to locate" >&2; exit 100; }}\ncp {tmp_path}/*.deb .')
    assert taken(Debian("made", "1"), "usr/share/*.bin") == {"usr/share/a.bin": b"content"}
    with pytest.raises(SourceError, match="Unable to locate; `apt-get update` may help"):
        taken(Debian("other", "1"), "usr/share/a.bin")


@pytest.mark.parametrize("source", [Debian("made", "1"), Npm("made@1.0.0", "")])
def test_a_system_without_the_client_says_so(source, monkeypatch, tmp_path, taken):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match=r"this system has no (apt-get|npm)"):
        taken(source, "a")
