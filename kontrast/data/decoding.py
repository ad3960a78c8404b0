"""Decode the files of a listing into one array on disk, with an index of what came from where."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast.data import formats
from kontrast.data.decode import Layout, arrange
from kontrast.data.folder import FileListing
from kontrast.data.images import Facts, fingerprint
from kontrast.data.reading import Contents, Header, Reading
from kontrast.data.scan import Scan, in_threads, why_unreadable
from kontrast.errors import InputError

PIXELS, FACTS, INDEX = "pixels.npy", "facts.npy", "index.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """The images of a listing, `n` in all, in the order of their files."""

    pixels: NDArray[Any]
    """`(m, channels, side, side)`, a read-only memory map."""
    rows: NDArray[np.int64]
    """`(n,)` row of `pixels` that holds each image; other rows belong to files that could not be decoded."""
    files: NDArray[np.int64]
    """`(n,)` position of the file of each image."""
    parts: tuple[str, ...]
    """`(n,)` what follows the file's name in the image's: "" where it is the only one."""
    groups: tuple[tuple[str, ...], ...]
    """`(n,)` aliases of what each image belongs to as its file knows it, the surest first."""
    facts: Facts
    skipped: dict[int, str]
    """Position and reason of each file that could not be read."""
    left_out: dict[int, str]
    """Position of each file that is sound but no image to learn from, and the rule."""
    fingerprint: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoding:
    """Files that have been looked into, and what their images are to become."""

    listing: FileListing
    scans: Sequence[Scan]
    layout: Layout
    how: Reading

    @cached_property
    def contents(self) -> dict[int, Contents]:
        """By position, of all files that have any."""
        return {position: entry.contents for position, entry in enumerate(self.scans) if entry.contents is not None}

    @cached_property
    def counts(self) -> list[int]:
        """Images of each of these files."""
        return [len(contents.headers) for contents in self.contents.values()]

    @cached_property
    def starts(self) -> dict[int, int]:
        """By position, the row of the first image of each of these files."""
        return dict(zip(self.contents, (np.cumsum(self.counts) - self.counts).tolist(), strict=True))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the array of all images."""
        return (sum(self.counts), self.layout.channels, self.layout.store, self.layout.store)

    def write(self, folder: Path, alias: Callable[[str], str]) -> None:
        """Writes the pixels, facts and index into an empty folder; groups only as their aliases."""
        pixels = _allocated(folder / PIXELS, self.shape, self.layout.dtype)
        work = partial(self._decode_into, pixels)
        outcomes = in_threads(work, list(self.contents), title="Decoding images")
        failed = {position: reason for position, reason in zip(self.contents, outcomes, strict=True) if reason}
        files = np.repeat(np.array(list(self.contents), dtype=np.int64), self.counts)
        rows = np.flatnonzero(~np.isin(files, list(failed)))
        headers = [header for contents in self.contents.values() for header in contents.headers]
        np.save(folder / FACTS, Facts.of([headers[row] for row in rows]).table)
        index = self._index(pixels, rows, files[rows], failed, alias)
        pixels.flush()
        (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")

    def _index(
        self,
        pixels: NDArray[Any],
        rows: NDArray[np.int64],
        files: NDArray[np.int64],
        failed: dict[int, str],
        alias: Callable[[str], str],
    ) -> dict[str, Any]:
        every = [part for contents in self.contents.values() for part in contents.parts]
        parts = [every[row] for row in rows]
        names = tuple(self.listing.names[position] + part for position, part in zip(files, parts, strict=True))
        return {
            "rows": rows.tolist(),
            "files": files.tolist(),
            "parts": parts,
            "groups": {position: [alias(group) for group in known.groups] for position, known in self.contents.items()},
            "skipped": sorted((reasons(self.scans, is_left_out=False) | failed).items()),
            "left_out": sorted(reasons(self.scans, is_left_out=True).items()),
            "fingerprint": fingerprint(pixels, rows, names),
        }

    def _decode_into(self, pixels: NDArray[Any], position: int) -> str:
        """Decodes the images of one file into their rows and returns "", or the reason why they could not be."""
        files, expected = self.listing.files(position), len(self.contents[position].headers)
        rows = iter(range(self.starts[position], self.starts[position] + expected))
        try:
            images = formats.read(files, self.how, side=self.layout.store, background=self.layout.background)
            for row, image in zip(rows, images, strict=True):
                pixels[row] = arrange(image, self.layout)
        except (MemoryError, InputError):
            raise
        except Exception as error:  # decoders raise dozens of kinds, from SyntaxError to struct.error
            return why_unreadable(error)
        return ""


def reasons(scans: Sequence[Scan], *, is_left_out: bool) -> dict[int, str]:
    """By position, why files have no contents: by rule, or by damage."""
    return {
        position: entry.reason
        for position, entry in enumerate(scans)
        if entry.contents is None and entry.is_left_out == is_left_out
    }


def headers(names: Sequence[str], scans: Sequence[Scan]) -> dict[str, Header]:
    """The header of every image, by its name, from the names of the files."""
    return {
        name + part: header
        for name, entry in zip(names, scans, strict=True)
        if entry.contents is not None
        for part, header in zip(entry.contents.parts, entry.contents.headers, strict=True)
    }


def load(folder: Path) -> Decoded:
    """What `Decoding.write` wrote."""
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return Decoded(
        pixels=np.asarray(np.load(folder / PIXELS, mmap_mode="r")),
        rows=np.array(index["rows"], dtype=np.int64),
        files=np.array(index["files"], dtype=np.int64),
        parts=tuple(index["parts"]),
        groups=tuple(tuple(index["groups"][str(position)]) for position in index["files"]),
        facts=Facts(np.load(folder / FACTS)),
        skipped=dict(index["skipped"]),
        left_out=dict(index["left_out"]),
        fingerprint=index["fingerprint"],
    )


def _allocated(path: Path, shape: tuple[int, ...], dtype: str) -> np.memmap[Any, Any]:
    """A new memory map whose space is really there: writing to a sparse one on a full disk would kill the process."""
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    assert isinstance(pixels, np.memmap)
    return pixels
