"""Damaged pictures, by the thousand: an image of the promised kind or an ordinary error, in bounded time and memory.

A child process reads them through the formats, as a scan and the decoding do, under a limit of its memory; it is this
file, run as a script: count, seed, folder.
"""

import faulthandler
import io
import os
import random
import re
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kontrast

SECONDS = 10
"""For one file; a slow machine may stall."""
MEMORY = 2 << 30
"""Bytes beyond what the imports take."""
SPECIAL = [
    *(struct.pack(order + "H", value) for order in "<>" for value in (0, 1, 2, 3, 6, 8, 12, 16, 32, 0x7FFF, 0xFFFF)),
    *(struct.pack(order + "I", value) for order in "<>" for value in (0, 1, 255, 2**16, 2**24, 2**31 - 1, 2**32 - 1)),
    b"\xff\xd8", b"\xff\xd9", b"\xff\xc0", b"9999999999", b"-1", b" ", b"\0\0\0\0\0\0\0\0",
]  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="memory can be limited on Unix only")
@pytest.mark.parametrize(("count", "seed"), [(150, 1), pytest.param(10_000, 2, marks=pytest.mark.slow)])
def test_damaged_pictures_give_images_or_an_ordinary_error(tmp_path, count, seed, capsys):
    pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    command = [sys.executable, "-X", "faulthandler", __file__, str(count), str(seed), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(kontrast.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    with capsys.disabled():
        print(f"\n{done.stdout.strip()[-1000:]}")
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]


def originals() -> dict[str, bytes]:
    """Small whole pictures by name, of every kind that is read and several of TIFF."""
    rng = np.random.default_rng(0)
    deep = np.cumsum(rng.integers(0, 900, (20, 24, 5)), axis=1).astype(np.uint16)
    flat = (deep >> 7).astype(np.uint8)
    return {**pngs(deep, flat), **tiffs(deep, flat), **others(deep, flat)}


def saved(image: Image.Image, kind: str, **how) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6
    return exif


def pngs(deep: np.ndarray, flat: np.ndarray) -> dict[str, bytes]:
    import imagecodecs

    images = {
        "grey": Image.fromarray(flat[..., 0]),
        "grey16": Image.fromarray(deep[..., 0]),
        "rgb": Image.fromarray(flat[..., :3].copy()),
        "rgba": Image.fromarray(flat[..., :4].copy(), "RGBA"),
        "la": Image.fromarray(flat[..., :2].copy(), "LA"),
        "bits": Image.fromarray(flat[..., 0] > 60),
    }
    files = {f"{name}.png": saved(image, "png") for name, image in images.items()}
    files["palette.png"] = saved(images["rgb"].quantize(16), "png", transparency=3)
    files["turned.png"] = saved(images["rgb"], "png", exif=turned())
    for channels in (2, 3, 4):
        files[f"deep{channels}.png"] = imagecodecs.png_encode(np.ascontiguousarray(deep[..., :channels]))
    return files


def tiffs(deep: np.ndarray, flat: np.ndarray) -> dict[str, bytes]:
    import tifffile

    planes = np.ascontiguousarray(deep[..., :3].transpose(2, 0, 1))
    rgba, opaque = {"photometric": "rgb", "extrasamples": ["assocalpha"]}, {"extrasamples": ["unassalpha"]}
    several = {"photometric": "minisblack", "planarconfig": "contig"}
    made = {
        "rgb16": (deep[..., :3], {"photometric": "rgb"}),
        "deflate16": (deep[..., :3], {"photometric": "rgb", "compression": "zlib", "predictor": True}),
        "planar16": (planes, {"photometric": "rgb", "planarconfig": "separate"}),
        "big-endian": (deep[..., :3], {"photometric": "rgb", "byteorder": ">"}),
        "big": (deep[..., :3], {"photometric": "rgb", "bigtiff": True}),
        "five": (deep, several),
        "five8": (flat, several | {"compression": "lzw"}),
        "tiled": (deep, several | {"tile": (16, 16), "compression": "zlib"}),
        "white16": (deep[..., 0], {"photometric": "miniswhite"}),
        "white8": (flat[..., 0], {"photometric": "miniswhite", "compression": "zlib"}),
        "associated": (deep[..., :4], rgba),
        "associated8": (flat[..., :4], rgba | {"compression": "lzw"}),
        "opaque": (deep[..., :5], {"photometric": "rgb", "extrasamples": ["unassalpha", "unspecified"]}),
        "grey-opaque": (flat[..., :2], several | opaque),
        "turned": (deep[..., :3], {"photometric": "rgb", "extratags": [(274, 3, 1, 6, True)]}),
        "rgb8": (flat[..., :3], {"photometric": "rgb", "rowsperstrip": 5}),
        "jpeg": (flat[..., :3], {"photometric": "ycbcr", "compression": "jpeg"}),
    }
    files = {}
    for name, (pixels, how) in made.items():
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, np.ascontiguousarray(pixels), **how)
        files[f"{name}.tif"] = buffer.getvalue()
    return files


def others(deep: np.ndarray, flat: np.ndarray) -> dict[str, bytes]:
    grey, rgb = Image.fromarray(flat[..., 0]), Image.fromarray(flat[..., :3].copy())
    rgba = Image.fromarray(flat[..., :4].copy(), "RGBA")
    return {
        "grey.jpg": saved(grey, "jpeg"),
        "rgb.jpg": saved(rgb, "jpeg", exif=turned()),
        "progressive.jpeg": saved(rgb, "jpeg", progressive=True),
        "ink.jpg": saved(rgb.convert("CMYK"), "jpeg"),
        "grey.bmp": saved(grey, "bmp"),
        "rgb.bmp": saved(rgb, "bmp"),
        "one.gif": saved(rgb.quantize(8), "gif", transparency=2),
        "two.gif": saved(rgb.quantize(8), "gif", save_all=True, append_images=[grey.quantize(4)]),
        "lossy.webp": saved(rgb, "webp", exif=turned()),
        "lossless.webp": saved(rgba, "webp", lossless=True),
        "grey.pgm": saved(grey, "ppm"),
        "grey16.pgm": saved(Image.fromarray(deep[..., 0]), "ppm"),
        "text.pgm": b"P2 3 2 255\n1 2 3\n4 5 255\n",
        "rgb.ppm": saved(rgb, "ppm"),
    }


def damaged(chance: random.Random, name: str, content: bytes, others: list[bytes]) -> bytes:
    """The file with one to four changes, often of what describes the pixels; checksums of PNG are often made good."""
    made = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        changed(chance, made, others)
    if name.endswith(".tif") and chance.random() < 0.5:
        change_tag(chance, made)
    return mended(bytes(made)) if name.endswith(".png") and chance.random() < 0.8 else bytes(made)


def changed(chance: random.Random, made: bytearray, others: list[bytes]) -> None:
    if not made:
        return
    place = chance.randrange(min(200, len(made)) if chance.random() < 0.7 else len(made))
    kind = chance.choice(["bit", "bit", "byte", "special", "special", "cut", "insert", "remove", "splice", "repeat"])
    if kind == "bit":
        made[place] ^= 1 << chance.randrange(8)
    elif kind == "byte":
        made[place] = chance.randrange(256)
    elif kind == "special":
        value = chance.choice(SPECIAL)
        made[place : place + len(value)] = value
    elif kind == "cut" and chance.random() < 0.5:
        del made[chance.randrange(len(made)) :]
    elif kind == "insert":
        made[place:place] = chance.randbytes(chance.choice([1, 2, 4, 100]))
    elif kind == "remove":
        del made[place : place + chance.choice([1, 2, 4, 12, 100])]
    elif kind == "splice" and chance.random() < 0.4:
        other = chance.choice(others)
        made[place:] = other[chance.randrange(len(other)) :]
    elif kind == "repeat":
        made[place:place] = made[place : place + chance.choice([4, 12, 40])] * chance.choice([1, 30])


def change_tag(chance: random.Random, made: bytearray) -> None:
    """Another tag, type, count or value in the first directory of an ordinary TIFF."""
    order = "<" if made[:2] == b"II" else ">"
    start = struct.unpack_from(order + "I", made, 4)[0] if len(made) >= 8 else len(made)
    if start + 2 > len(made):
        return
    entry = start + 2 + 12 * chance.randrange(max(1, min(40, struct.unpack_from(order + "H", made, start)[0])))
    field, kind = chance.choice([(0, "H"), (2, "H"), (4, "I"), (8, "H"), (8, "I"), (8, "H")])
    if entry + 12 <= len(made):
        few = [0, 1, 2, 3, 4, 5, 6, 8, 16, 32, 254, 258, 262, 277, 284, 317, 338, 339, 5000, 65535]
        many = [2**20, 2**31, 2**32 - 1] if kind == "I" else []
        struct.pack_into(order + kind, made, entry + field, chance.choice(few + many))


def mended(content: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what they hold."""
    made, place = bytearray(content), 8
    while place + 12 <= len(made):
        end = place + 8 + struct.unpack_from(">I", made, place)[0]
        if end + 4 > len(made):
            break
        struct.pack_into(">I", made, end, zlib.crc32(made[place + 4 : end]))
        place = end + 4
    return bytes(made)


def outcome(path: Path, background: int) -> str:
    """What became of a file; anything but an image of the promised kind and ordinary errors is raised."""
    from kontrast.data import formats
    from kontrast.data.reading import Reading

    header = None
    try:
        (header,) = formats.look((path,), Reading()).headers
    except (AssertionError, MemoryError, RecursionError, SystemError):
        raise
    except Exception as error:
        refused = type(error).__name__
    try:
        (image,) = formats.read((path,), Reading(), side=16, background=background)
    except (AssertionError, MemoryError, RecursionError, SystemError):
        raise
    except Exception as error:
        return type(error).__name__
    if header is None:
        return f"{refused}, at the first look only"
    assert image.dtype == (np.uint16 if header.bits > 8 else np.uint8), "another depth than look says"
    if path.suffix in (".jpg", ".jpeg"):  # smaller, as the decoder left out detail
        assert image.shape[2] == header.channels
        assert all(0 < found <= said for found, said in zip(image.shape, (header.height, header.width), strict=False))
    else:
        assert image.shape == (header.height, header.width, header.channels), "another shape than look says"
    return "images"


def limit_memory() -> None:
    used = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))


def main(count: int, seed: int, folder: Path) -> None:
    from kontrast.data.pictures import strict_pillow

    files = originals()
    names, outcomes, slowest, begun = sorted(files), Counter(), 0.0, time.monotonic()
    with strict_pillow():
        for name in names:  # whole ones, so that decoders are loaded before memory is limited
            path = folder / f"whole-{name}"
            path.write_bytes(files[name])
            assert outcome(path, 0) == "images", name
        if sys.platform == "linux":
            limit_memory()
        for number in range(count):
            chance = random.Random(f"{seed}/{number}")
            name = chance.choice(names)
            path = folder / f"damaged-{name}"
            path.write_bytes(damaged(chance, name, files[name], list(files.values())))
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            started = time.monotonic()
            try:
                outcomes[outcome(path, chance.choice([0, 255]))] += 1
            except BaseException:
                print(f"file {number} of seed {seed}: {path}")
                raise
            slowest = max(slowest, time.monotonic() - started)
            faulthandler.cancel_dump_traceback_later()
    took = time.monotonic() - begun
    print(
        f"{count} damaged pictures, seed {seed}: {took:.0f} s, slowest {slowest:.1f} s; {dict(outcomes.most_common())}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
