"""How many images a second does the check for duplicates look at, and what does it find?

The same images, by Kontrast (exact copies, and near-duplicates with verification) and by the usual loop: an image at a
time through Pillow, the DCT hash of 64 bits of ImageHash (its own code if that is installed, else the same steps), and
all pairs within 4 bits. Every tenth image is there again as a JPEG of quality 75. One process each; interleaved;
medians.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dct
from timing import Turns, Work, installed, interleave, machine, table

from kontrast import data
from kontrast.data.audit.leaks import find_copies
from kontrast.data.images import ImageSet

Pairs = set[tuple[int, int]]
BITS = 4
"""Of 64 that may differ."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", default="fashion-mnist")
    parser.add_argument("--images", type=int, nargs="+", default=[5000, 20000])
    parser.add_argument("--side", type=int, default=28)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    rows = []
    for count in options.images:
        turns = {name: Turns(library, name, options.sample, count, options.side) for name in LIBRARIES}
        try:
            seconds = interleave(dict(turns), options.rounds)
            for name, value in seconds.items():
                total, recall, others = turns[name].note
                ratio = seconds["DCT hash, image by image"] / value
                rows.append(
                    [f"{total:,}", name, f"{total / value:,.0f}", f"{ratio:.1f}", f"{recall:.3f}", f"{others:,}"]
                )
        finally:
            for turn in turns.values():
                turn.end()
    print(machine("numpy", "scipy", "pillow", "imagehash"))
    print(table(["images", "search", "images/s", "× the loop", "copies found", "other pairs"], rows))


def library(name: str, sample: str, count: int, side: int) -> Work:
    """One way in its own process; its note is the number of images, the share of the copies found, and other pairs."""
    images, planted = with_copies(sample, count, side)
    search = LIBRARIES[name]
    found = search(images)
    note = len(images), len(found & planted) / len(planted), len(found - planted)
    return lambda _: search(images), note, lambda: None


def with_copies(sample: str, count: int, side: int) -> tuple[ImageSet, Pairs]:
    """Grey images, the copies at the end, and the pairs to be found."""
    found = data.open(f"sample:{sample}", channels=1)
    pixels = found.pixels[found.rows[np.linspace(0, len(found) - 1, count).astype(int)]]
    pixels = np.unique(pixels, axis=0)
    if pixels.shape[2] != side:
        pixels = np.stack([np.asarray(Image.fromarray(each[0]).resize((side, side)))[None] for each in pixels])
    again = np.arange(0, len(pixels), 10)
    copies = np.stack([encoded(pixels[at, 0])[None] for at in again])
    everything = np.concatenate([pixels, copies])
    rows = np.arange(len(everything))
    nothing = {"labels": None, "groups": None, "parts": None, "facts": None}
    images = replace(found, pixels=everything, rows=rows, names=tuple(map(str, rows)), **nothing)
    return images, {(int(at), len(pixels) + number) for number, at in enumerate(again)}


def encoded(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


def kontrast(images: ImageSet) -> Pairs:
    pairs = find_copies(images).pairs
    return set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


def hash_loop(images: ImageSet) -> Pairs:
    hashes = np.stack([hashed(image[0]) for image in images.pixels])
    found: Pairs = set()
    for start in range(0, len(hashes), 256):
        bits = np.bitwise_count(hashes[start : start + 256, None] ^ hashes[None])
        row, column = np.nonzero(bits <= BITS)
        new = row + start < column
        found.update(zip((row[new] + start).tolist(), column[new].tolist(), strict=True))
    return found


def hashed(image: NDArray[np.uint8]) -> np.uint64:
    """As `imagehash.phash`: 32 x 32 pixels, the 8 x 8 lowest frequencies, above their median or not."""
    if installed("imagehash"):
        from imagehash import phash

        bits = phash(Image.fromarray(image)).hash
    else:
        small = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.LANCZOS))
        low = dct(dct(small.astype(float), axis=0), axis=1)[:8, :8]
        bits = low > np.median(low)
    return np.packbits(bits.ravel()).view(np.uint64)[0]


LIBRARIES: dict[str, Callable[[ImageSet], Pairs]] = {"Kontrast": kontrast, "DCT hash, image by image": hash_loop}


if __name__ == "__main__":
    main()
