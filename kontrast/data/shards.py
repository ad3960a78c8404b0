"""Shards of WebDataset: tar files of `key.png` and `key.txt`, unpacked once into the cache and read as a folder there.

    <root>/shards/<digest>/...      images and texts of one shard, by its place, size and time; complete or not there

Other members, such as `key.json` or `key.pkl`, are not even unpacked. Nor is `1.2.png`: a key ends at the first dot, so
that this is a member `2.png` of the key 1, as `a.seg.png` is a mask of the key `a`. They are counted and named.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

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
_VERSION = 2
"""Of what is unpacked; version 1 took a damaged tar for a shorter one."""
_DAMAGED = (
    *(tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError, RecursionError),
    *(FileExistsError, NotADirectoryError, IsADirectoryError),
)
"""What damaged headers and contradictory names raise."""
_SHOWN = 3
_log = logging.getLogger("kontrast")


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

    A tar that is cut or damaged anywhere but in the content of its files is refused, and nothing of it is kept.

    Raises:
        InputError: A shard is no tar, is damaged, holds a path that leads out of it or a file too large, or no images;
            or the cache cannot be written.
    """
    shards = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix.lower() == TAR)
    root = cache_root(cache).absolute() / "shards"
    folders = [_unpacked(shard.absolute(), root) for shard in shards]
    found = sorted(_named(shards, folders))
    dotted = tuple(_with_dotted_keys(shards, folders))
    if not found:
        but = f", but {len(dotted)} files whose keys hold a dot ({_first(dotted)})" if dotted else ""
        raise InputError(
            "a shard must hold images as KEY.png, .jpg and so on, and texts as KEY.txt, and a KEY ends at its first "
            f"dot; {path} holds no image{but}: point to shards that do, or write their keys without dots"
        )
    names, paths = zip(*found, strict=True)
    return FileListing(name=str(path), names=names, paths=paths, annotations=Annotations(), dotted=dotted)


def tell_dotted(found: FileListing, shown: Callable[[str], str], *, texts: bool) -> None:
    """Count and name the images, and the texts where they are read, that a shard holds under keys with dots."""
    dotted = [shown(name) for name in found.dotted if texts or not name.lower().endswith(SUFFIX)]
    if dotted:
        _log.warning(
            "%d files of %s are left out, since a key ends at its first dot, and what follows is not the suffix of an "
            "image or text: %s: write keys without dots where these are images to learn from",
            *(len(dotted), found.name, _first(dotted)),
        )


def _named(shards: Sequence[Path], folders: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Name and file of each image; the shard's name stands before it where there are several."""
    for shard, folder in zip(shards, folders, strict=True):
        for file in folder.rglob("*"):
            if file.suffix.lower() in pictures.SUFFIXES:
                yield _in_shard(file.relative_to(folder).as_posix(), shard, shards), file


def _with_dotted_keys(shards: Sequence[Path], folders: Sequence[Path]) -> Iterator[str]:
    for shard, folder in zip(shards, folders, strict=True):
        for name in json.loads((folder / INDEX).read_text(encoding="ascii"))["dotted"]:
            yield _in_shard(name, shard, shards)


def _in_shard(name: str, shard: Path, shards: Sequence[Path]) -> str:
    return f"{shard.stem}/{name}" if len(shards) > 1 else name


def _first(names: Sequence[str]) -> str:
    return ", ".join(ascii(name)[1:-1] for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _unpacked(shard: Path, root: Path) -> Path:
    """The folder that holds the images and texts of a shard."""
    state = shard.stat()
    place = [_VERSION, str(shard), state.st_size, state.st_mtime_ns]
    folder = root / hashlib.sha256(json.dumps(place).encode("ascii")).hexdigest()
    if not (folder / INDEX).is_file():
        with explained(root, state.st_size, f"the files of {shard.name}"), replacing(folder) as temporary:
            dotted = _unpack(shard, temporary)
            (temporary / INDEX).write_text(json.dumps({"shard": place, "dotted": dotted}), encoding="ascii")
    return folder


def _unpack(shard: Path, into: Path) -> list[str]:
    """Writes the images and texts, and returns the names of those whose keys hold a dot.

    Only of a tar that is not compressed, which holds no more than its own size.
    """
    dotted, size = [], shard.stat().st_size
    try:
        with tarfile.open(shard, "r:") as opened, progress(f"Unpacking {shard.name}", total=None) as advance:
            for entry in opened:
                _check_step(entry, opened.offset, size)
                if (name := _wanted(entry, shard)) and (content := opened.extractfile(entry)):
                    _write(content, into / name)
                elif _has_dotted_key(entry):
                    dotted.append(_name(entry))
                advance(1)
            _check_end(shard, opened.offset)
    except InputError:
        raise
    except _DAMAGED as error:
        raise InputError(
            f"a shard must be a tar file that is whole and not compressed; {shard} is not "
            f"({str(error) or type(error).__name__}): write it anew"
        ) from error
    return dotted


def _write(content: IO[bytes], target: Path) -> None:
    """A text too long is cut one byte above the limit, at which it is left out and named like one in a folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        if target.suffix.lower() == SUFFIX:
            file.write(content.read(MOST_BYTES + 1))
        else:
            shutil.copyfileobj(content, file, _BLOCK)


def _check_step(entry: tarfile.TarInfo, offset: int, size: int) -> None:
    """Refuses a header with a negative size, from which `tarfile` would go back, maybe for ever, or one beyond the tar.

    Raises:
        tarfile.ReadError: The next header would be at `offset`, which is not after this one and within `size` bytes.
    """
    if not entry.offset_data <= offset <= size:
        raise tarfile.ReadError(f"cut, or damaged in the header of {entry.name[:80]!r}")


def _check_end(shard: Path, offset: int) -> None:
    """Refuses a tar without its end, a block of zeros; `tarfile` takes a cut or a damaged header for it in silence.

    Raises:
        tarfile.ReadError: From `offset` on, there is less than a block or anything but zeros.
    """
    left = 0
    with shard.open("rb") as file:
        file.seek(offset)
        while block := file.read(_BLOCK):
            if block.count(0) < len(block):
                raise tarfile.ReadError(f"damaged at byte {offset:,}, or one tar after another")
            left += len(block)
    if left < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"it ends at byte {offset:,} without the mark of its end")


def _wanted(entry: tarfile.TarInfo, shard: Path) -> str:
    """The path of an image or a text below the shard's folder; "" for anything else, links and devices among it."""
    name = _name(entry)
    suffix = f".{PurePosixPath(name).name.partition('.')[2].lower()}"
    if not _is_plain(entry) or suffix not in {SUFFIX, *pictures.SUFFIXES}:
        return ""
    if leads_out(name) or (suffix != SUFFIX and entry.size > MOST_OF_A_PICTURE):
        raise InputError(
            f"a file in a shard stays below its folder and has at most {MOST_OF_A_PICTURE >> 20} MiB; {shard} holds "
            f"{name[:80]!r} of {entry.size:,} bytes: use shards from a source that you trust"
        )
    return name


def _has_dotted_key(entry: tarfile.TarInfo) -> bool:
    """Whether a file ends like an image or text, but not right after the first dot of its name."""
    name = PurePosixPath(_name(entry)).name.lower()
    return _is_plain(entry) and name.count(".") > 1 and name.endswith((SUFFIX, *pictures.SUFFIXES))


def _is_plain(entry: tarfile.TarInfo) -> bool:
    """Neither a link, a device, a file with holes nor hidden."""
    is_file = entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not entry.issparse()
    return is_file and not _is_hidden(_name(entry))


def _name(entry: tarfile.TarInfo) -> str:
    return entry.name.removeprefix("./")


def _is_hidden(name: str) -> bool:
    """Such as `._key.png`, which some systems put beside every file; `..` is not, but leads out."""
    return any(part.startswith(".") and part != ".." for part in PurePosixPath(name).parts)
