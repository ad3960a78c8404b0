"""Every test has a cache of its own, some synthetic images, and a server on this machine."""

import io
import tarfile
import threading
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kontrast.data.images import ImageSet


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("KONTRAST_CACHE", str(root))
    return root


@pytest.fixture
def save() -> Callable[..., Path]:
    def save(path: Path, pixels: np.ndarray | int = 0, *, side: int = 8) -> Path:
        """Writes `pixels`, or a square of noise from a seed."""
        if isinstance(pixels, int):
            pixels = np.random.default_rng(pixels).integers(0, 256, (side, side), dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return path

    return save


@pytest.fixture
def image_set() -> Callable[..., ImageSet]:
    def image_set(labels=None, *, groups=None, parts=None, classes=None, pixels=None) -> ImageSet:
        known = next(values for values in (labels, groups, parts, pixels) if values is not None)
        count = len(known)
        labels = None if labels is None else np.asarray(labels)
        if classes is None:
            width = 0 if labels is None else labels.shape[1] if labels.ndim == 2 else int(labels.max(initial=-1)) + 1
            classes = tuple(f"class {code}" for code in range(width))
        return ImageSet(
            name="made",
            pixels=np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1) if pixels is None else pixels,
            rows=np.arange(count),
            names=tuple(f"image/{row}" for row in range(count)),
            labels=labels,
            classes=classes,
            groups=None if groups is None else np.asarray(groups),
            parts=None if parts is None else np.asarray(parts),
            skipped=(),
            fingerprint="",
        )

    return image_set


@pytest.fixture
def serve():
    """Serves a folder, or what a handler says, and returns the address."""
    servers = []

    def serve(what) -> str:
        handler = what if isinstance(what, type) else _folder(what)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def _folder(root: Path) -> type[SimpleHTTPRequestHandler]:
    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *request, **how):
            super().__init__(*request, directory=str(root), **how)

        def log_message(self, *_):
            pass

    return Quiet


@pytest.fixture
def tarred() -> Callable[..., bytes]:
    def tarred(entries, *, mode="w:gz") -> bytes:
        """A tar of names and contents; ("link", target) is a symbolic link and ("hard", target) a hard one."""
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode=mode) as archive:
            for name, content in entries.items():
                entry = tarfile.TarInfo(name)
                if isinstance(content, tuple):
                    entry.type = tarfile.SYMTYPE if content[0] == "link" else tarfile.LNKTYPE
                    entry.linkname = content[1]
                else:
                    entry.size = len(content)
                archive.addfile(entry, None if isinstance(content, tuple) else io.BytesIO(content))
        return made.getvalue()

    return tarred
