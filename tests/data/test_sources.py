import base64
import hashlib
import os
import shutil
import subprocess
import threading
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kontrast.data.sources import Address, Debian, Installed, SourceError, Wheel


@pytest.fixture
def serve():
    servers = []

    def serve(handler) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Short(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"half")

    def log_message(self, *_):
        pass


def test_an_address_gives_the_file_under_its_own_name(tmp_path, serve):
    (tmp_path / "a.bin").write_bytes(b"content")
    address = Address(serve(partial(Silent, directory=str(tmp_path))))
    assert address.read(["usr/share/a.bin"]) == {"usr/share/a.bin": b"content"}


def test_an_address_without_the_file_says_404(tmp_path, serve):
    with pytest.raises(SourceError, match="404"):
        Address(serve(partial(Silent, directory=str(tmp_path)))).read(["a.bin"])


def test_a_download_that_breaks_off_is_no_download(serve):
    with pytest.raises(SourceError, match=r"4 of 100 bytes|IncompleteRead"):
        Address(serve(Short)).read(["a.bin"])


def test_an_installed_package_is_read_without_being_imported(tmp_path, monkeypatch):
    (tmp_path / "bomb_package").mkdir()
    (tmp_path / "bomb_package" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "bomb_package" / "a.bin").write_bytes(b"content")
    monkeypatch.syspath_prepend(tmp_path)
    assert Installed("bomb_package").read(["bomb_package/a.bin"]) == {"bomb_package/a.bin": b"content"}
    with pytest.raises(SourceError, match=r"no file bomb_package/b.bin"):
        Installed("bomb_package").read(["bomb_package/b.bin"])


def test_a_member_that_links_out_of_its_package_is_refused(tmp_path, monkeypatch):
    (tmp_path / "secret").write_bytes(b"secret")
    package = tmp_path / "site" / "link_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    os.symlink(tmp_path / "secret", package / "a.bin")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(SourceError, match="no file"):
        Installed("link_package").read(["link_package/a.bin"])


def test_a_wheel_is_fetched_by_pip_and_read_in_place(tmp_path, monkeypatch):
    metadata = b"Metadata-Version: 2.1\nName: made-package\nVersion: 1.0\n"
    wheel = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {"made_package/a.bin": b"content", "made_package-1.0.dist-info/METADATA": metadata}
    files["made_package-1.0.dist-info/WHEEL"] = wheel
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(value).digest()).decode().rstrip('=')},{len(value)}\n"
        for name, value in files.items()
    )
    with zipfile.ZipFile(tmp_path / "made_package-1.0-py3-none-any.whl", "w") as archive:
        for name, value in (files | {"made_package-1.0.dist-info/RECORD": record.encode()}).items():
            archive.writestr(name, value)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert Wheel("made-package==1.0").read(["made_package/a.bin"]) == {"made_package/a.bin": b"content"}
    with pytest.raises(SourceError, match="no item named"):
        Wheel("made-package==1.0").read(["made_package/b.bin"])
    with pytest.raises(SourceError, match="No matching distribution"):
        Wheel("made-package==2.0").read(["made_package/a.bin"])


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb on this system")
def test_a_debian_package_is_unpacked_beside_and_not_installed(tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        "Package: made\nVersion: 1\nArchitecture: all\nMaintainer: T <t@example.org>\nDescription: made\n"
    )
    (root / "usr" / "share").mkdir(parents=True)
    (root / "usr" / "share" / "a.bin").write_bytes(b"content")
    subprocess.run(["dpkg-deb", "-b", str(root), str(tmp_path / "made_1_all.deb")], check=True, capture_output=True)
    fake = tmp_path / "bin" / "apt-get"
    fake.parent.mkdir()
    fake.write_text(
        f'#!/bin/sh\n[ "$3" = made ] || {{ echo "E: Unable to locate" >&2; exit 100; }}\ncp {tmp_path}/*.deb .\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    assert Debian("made").read(["usr/share/a.bin"]) == {"usr/share/a.bin": b"content"}
    with pytest.raises(SourceError, match="Unable to locate"):
        Debian("other").read(["usr/share/a.bin"])


def test_a_system_without_apt_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="no apt-get"):
        Debian("made").read(["a"])
