"""Shards of WebDataset: tar files of `key.png` and `key.txt`, unpacked once into the cache and read as a folder there.

    <root>/shards/<digest>/...      images and texts of one shard, by its place, size and time; complete or not there

Other members, such as `key.json` or `key.pkl`, are not even unpacked.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from kontrast.data import pictures
from kontrast.data.annotations import Annotations
from kontrast.data.cache import cache_root, explained, replacing
from kontrast.data.decoding import INDEX
from kontrast.data.folder import FileListing
from kontrast.data.formats import format_of
from kontrast.data.pairs import MOST_BYTES, SUFFIX
from kontrast.data.progress import progress
from kontrast.data.unpack import leads_out
from kontrast.errors import InputError

TAR = ".tar"
MOST_OF_A_PICTURE = 1 << 28
"""Bytes of one picture above which a shard is refused: the header of a tar can claim any size."""
_BLOCK = 1 << 20


def is_shards(source: object) -> bool:
    """Whether data are a tar file, or a folder with tar files and neither images nor folders beside them."""
    if not isinstance(source, str | Path):
        return False
    path = Path(source).expanduser()
    if path.is_file():
        return path.suffix.lower() == TAR
    if not path.is_dir():
        return False
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    others = [entry for entry in entries if entry.suffix.lower() != TAR]
    return len(others) < len(entries) and not any(entry.is_dir() or format_of(entry) for entry in others)


def list_shards(path: Path, cache: Path | None = None) -> FileListing:
    """The images of a shard, or of all shards in a folder, in the cache; texts lie beside them.

    Raises:
        InputError: A shard is no tar, is damaged, holds a path that leads out of it or a file too large, or no images;
            or the cache cannot be written.
    """
    shards = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix.lower() == TAR)
    root = cache_root(cache).absolute() / "shards"
    folders = [_unpacked(shard.absolute(), root) for shard in shards]
    found = sorted(_named(shards, folders))
    if not found:
        raise InputError(
            f"a shard must hold images as KEY.png, .jpg and so on, and texts as KEY.txt; {path} holds no image: "
            "point to the shards that do"
        )
    names, paths = zip(*found, strict=True)
    return FileListing(name=str(path), names=names, paths=paths, annotations=Annotations())


def _named(shards: Sequence[Path], folders: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Name and file of each image; the shard's name stands before it where there are several."""
    for shard, folder in zip(shards, folders, strict=True):
        for file in folder.rglob("*"):
            if file.suffix.lower() in pictures.SUFFIXES:
                name = file.relative_to(folder).as_posix()
                yield (f"{shard.stem}/{name}" if len(shards) > 1 else name), file


def _unpacked(shard: Path, root: Path) -> Path:
    """The folder that holds the images and texts of a shard."""
    state = shard.stat()
    place = json.dumps([str(shard), state.st_size, state.st_mtime_ns])
    folder = root / hashlib.sha256(place.encode("ascii")).hexdigest()
    if not (folder / INDEX).is_file():
        with explained(root, state.st_size, f"the files of {shard.name}"), replacing(folder) as temporary:
            _unpack(shard, temporary)
            (temporary / INDEX).write_text(place, encoding="ascii")
    return folder


def _unpack(shard: Path, into: Path) -> None:
    """Writes the images and texts; only of a tar that is not compressed, which holds no more than its own size."""
    try:
        with tarfile.open(shard, "r:") as opened, progress(f"Unpacking {shard.name}", total=None) as advance:
            for entry in opened:
                if (name := _wanted(entry, shard)) and (content := opened.extractfile(entry)):
                    target = into / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("wb") as file:
                        shutil.copyfileobj(content, file, _BLOCK)
                advance(1)
    except (tarfile.TarError, EOFError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(
            f"a shard must be a tar file that is whole and not compressed; {shard} is not ({error}): write it anew"
        ) from error


def _wanted(entry: tarfile.TarInfo, shard: Path) -> str:
    """The path of an image or a text below the shard's folder; "" for anything else, links and devices among it."""
    name = entry.name.removeprefix("./")
    _, _, suffix = PurePosixPath(name).name.partition(".")
    most = MOST_BYTES if f".{suffix.lower()}" == SUFFIX else MOST_OF_A_PICTURE
    is_plain = entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not entry.issparse()
    if not is_plain or f".{suffix.lower()}" not in {SUFFIX, *pictures.SUFFIXES} or _is_hidden(name):
        return ""
    if leads_out(name) or entry.size > most:
        raise InputError(
            f"a file in a shard stays below its folder and has at most {most >> 20} MiB; {shard} holds "
            f"{name[:80]!r} of {entry.size:,} bytes: use shards from a source that you trust"
        )
    return name


def _is_hidden(name: str) -> bool:
    """Such as `._key.png`, which some systems put beside every file; `..` is not, but leads out."""
    return any(part.startswith(".") and part != ".." for part in PurePosixPath(name).parts)
