"""Damaged DICOM files give images or one kind of error: never a hang, a crash, much memory or a name.

Run as a program, this file reads damaged files in a process of its own, whose memory is limited and which ends with a
traceback when one file takes too long.
"""

import faulthandler
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="needs the extra medical")

from kontrast.data import formats
from kontrast.data.dicom import look, read
from kontrast.data.dicom.directory import list_dicomdir
from kontrast.data.dicom.file import DicomError
from kontrast.data.nifti.resample import Grid, resample
from kontrast.data.reading import Header, LeftOut, Reading
from kontrast.errors import InputError

SECONDS = 10
"""That one file may take, on a machine that does other things too."""
MEMORY = 2 << 30
"""Bytes that reading may take beyond what the process has at its start."""
SMALL = 45_000
ENOUGH = 1 << 20
"""Pixels of a file that are resampled."""
ELEMENT = re.compile(
    rb"[\0-\xff]{4}(AE|AS|AT|CS|DA|DS|DT|FD|FL|IS|LO|LT|OB|OW|PN|SH|SL|SQ|SS|ST|TM|UI|UL|UN|US|UT)", re.S
)
NUMBERS = (0, 1, 2, 7, 8, 9, 12, 16, 17, 24, 32, 64, 255, 256, 4096, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)
LENGTHS = (0, 1, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF)


def originals() -> list[bytes]:
    """Small real files with pixels, and directories."""
    folders = [Path(pydicom.__file__).parent / "data" / "test_files"]
    try:
        import data_store

        folders.append(Path(data_store.__file__).parent / "data")
    except ImportError:
        pass
    files = [file for folder in folders for file in folder.glob("*.dcm")]
    small = (file for file in sorted(files, key=lambda file: file.name) if file.stat().st_size <= SMALL)
    images = [content for content in map(Path.read_bytes, small) if b"\xe0\x7f\x10\x00" in content]
    return images + [file.read_bytes() for file in sorted((folders[0] / "dicomdirtests").glob("DICOMDIR*"))[:3]]


def overwrite(content: bytearray, place: int, new: bytes) -> None:
    content[place : place + len(new)] = new


def element(content: bytearray, chance: random.Random) -> int:
    """Where some element begins, mostly one near the pixels, or any place."""
    starts = [found.start() for found in ELEMENT.finditer(content)]
    return starts[int(len(starts) * chance.random() ** 0.3)] if starts else chance.randrange(len(content))


def flip_bits(content: bytearray, chance: random.Random, _: list[bytes]) -> None:
    behind = chance.choice((0, len(content) // 2, len(content) * 9 // 10))  # the header, or the pixels alone
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        content[chance.randrange(behind, len(content))] ^= 1 << chance.randrange(8)


def cut(content: bytearray, chance: random.Random, _: list[bytes]) -> None:
    del content[max(1, chance.randrange(len(content))) :]


def splice(content: bytearray, chance: random.Random, others: list[bytes]) -> None:
    other = chance.choice(others)
    start = chance.randrange(len(other))
    overwrite(content, element(content, chance), other[start : start + chance.choice((8, 60, 400, 4000))])


def huge_length(content: bytearray, chance: random.Random, _: list[bytes]) -> None:
    place = element(content, chance)
    if chance.random() < 0.5:
        overwrite(content, place + 6, (chance.choice(LENGTHS) & 0xFFFF).to_bytes(2, "little"))
    else:
        overwrite(content, place + chance.choice((4, 8)), chance.choice(LENGTHS).to_bytes(4, "little"))


def swap_tags(content: bytearray, chance: random.Random, _: list[bytes]) -> None:
    first, second = element(content, chance), element(content, chance)
    one, other = bytes(content[first : first + 6]), bytes(content[second : second + 6])
    overwrite(content, first, other)
    overwrite(content, second, one)


def insert(content: bytearray, chance: random.Random, _: list[bytes]) -> None:
    place = element(content, chance)
    content[place:place] = chance.randbytes(chance.choice((1, 2, 8, 100)))


def remove(content: bytearray, chance: random.Random, _: list[bytes]) -> None:
    place = element(content, chance)
    del content[place : place + chance.choice((1, 2, 8, 30, 300))]


def repeat(content: bytearray, chance: random.Random, _: list[bytes]) -> None:
    start, place = element(content, chance), element(content, chance)
    content[place:place] = content[start : start + chance.choice((8, 40, 400))] * chance.choice((1, 2, 30))


def other_number(content: bytearray, chance: random.Random, _: list[bytes]) -> None:
    """Another number in a tag that describes the pixels."""
    places = [
        found.end() for found in re.finditer(rb"\x28\x00[\x00-\xff]\x00(US\x02\x00|\x02\x00\x00\x00)", content, re.S)
    ]
    if places:
        overwrite(content, chance.choice(places), chance.choice(NUMBERS).to_bytes(2, "little"))


def other_text(content: bytearray, chance: random.Random, _: list[bytes]) -> None:
    texts = [found.span(1) for found in re.finditer(rb"(?:CS|DS|IS|UI).\x00([\x20-\x7e]{1,64})", content, re.S)]
    if texts:
        start, end = chance.choice(texts)
        new = chance.choice((b"9" * 64, b"-1", b"1e999", b"nan", b"x^y", b"\xff\xfe", b"\\\\\\", b"0"))
        overwrite(content, start, new[: end - start].ljust(end - start))


MUTATIONS = [
    flip_bits,
    flip_bits,
    cut,
    splice,
    huge_length,
    swap_tags,
    insert,
    remove,
    repeat,
    other_number,
    other_number,
    other_text,
    other_text,
]


def damaged(files: list[bytes], chance: random.Random) -> bytes:
    content = bytearray(chance.choice(files))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        chance.choice(MUTATIONS)(content, chance, files)
        if not content:
            break
    return bytes(content)


def names_in(content: bytes) -> set[str]:
    """What stands in the name and number of the patient, where it is long enough to be known again."""
    found = re.findall(rb"\x10\0[\x10\x20]\0(?:PN|LO)..([\x20-\x7e]{6,64})", content, re.S)
    return {text.decode("ascii").strip() for text in found}


def resampled(path: Path, how: Reading) -> list[Exception]:
    """Goes the way of a scan and of the decoding behind it, and returns what they refused."""
    try:
        headers = formats.look((path,), how).headers
        images = formats.read((path,), how, side=16, background=0)
        check_images(list(islice(images, 1 + ENOUGH // (headers[0].height * headers[0].width))), headers)
    except (LeftOut, ValueError) as error:  # DicomError is one
        return [error]
    return []


def outcome(path: Path, window: str, spacing: float | None) -> str:
    """Reads a file and says what came of it.

    Raises:
        Exception: Another error than is allowed.
    """
    told: list[Exception] = []
    try:
        list_dicomdir(path)
    except InputError as error:
        told.append(error)
    headers, result = (), "images"
    try:
        headers = look(path, Reading(window=window, keep_captures=True)).headers
    except (LeftOut, DicomError) as error:
        told.append(error)
    try:
        check_images(list(islice(read(path, Reading(window=window, keep_captures=True)), 100)), headers)
    except (LeftOut, DicomError) as error:
        told.append(error)
        result = type(error).__name__
    told += resampled(path, Reading(window=window, keep_captures=True, spacing=spacing))
    for error in told:
        text = f"{error!r} {error.__context__!r} {error.__cause__!r}".replace(str(path), "")
        assert not [name for name in names_in(path.read_bytes()) if name in text], text
    return result


def check_images(images: list[np.ndarray], headers: tuple[Header, ...]) -> None:
    for image in images:
        assert image.dtype == (np.uint16 if image.shape[2] == 1 else np.uint8)
    for image, header in zip(images, headers, strict=False):
        assert image.shape == (header.height, header.width, header.channels)


def main(count: int, seed: int, path: Path) -> None:
    """Reads `count` damaged files, each through `path`, and prints what came of them."""
    chance, files, outcomes, slowest = random.Random(seed), originals(), Counter(), 0.0
    for content in files:  # decoders are loaded before, too
        path.write_bytes(content)
        outcome(path, "auto", 1.0)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    if pages:
        limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for _ in range(count):
        path.write_bytes(damaged(files, chance))
        start = time.monotonic()
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        window, spacing = chance.choice(("auto", "full", "percentile", "0:100")), chance.choice((None, 0.05, 0.7, 9.0))
        outcomes[outcome(path, window, spacing)] += 1
        faulthandler.cancel_dump_traceback_later()
        slowest = max(slowest, time.monotonic() - start)
    print(f"{count} damaged files, seed {seed}: {dict(sorted(outcomes.items()))}, slowest {slowest:.2f} s")


@pytest.mark.skipif(sys.platform == "win32", reason="memory can be limited on Unix only")
@pytest.mark.parametrize(("count", "seed"), [(300, 1), pytest.param(25_000, 2, marks=pytest.mark.slow)])
def test_damaged_files(count, seed, tmp_path, capsys):
    path = tmp_path / "damaged.dcm"
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        "-W",
        "error::UserWarning",
        __file__,
        str(count),
        str(seed),
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    with capsys.disabled():
        print("\n" + done.stdout.strip())
    assert done.returncode == 0, f"{done.stderr[-4000:]}\n{count} files, seed {seed}; the last is {path}"
    assert not done.stderr


@pytest.mark.parametrize(
    ("sides", "said"), [([5000, 5000], "pixels, more than"), ([1e-7, 1], "no size"), ([1e300, 1e300], "no size")]
)
def test_a_spacing_that_would_make_an_image_huge_is_refused_unread(tmp_path, sides, said):
    dataset = pydicom.dcmread(Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm")
    dataset.PixelSpacing = sides
    dataset.save_as(tmp_path / "a.dcm")
    how = Reading(spacing=0.05)
    with pytest.raises(ValueError, match=said):
        formats.look((tmp_path / "a.dcm",), how)
    with pytest.raises(ValueError, match=said):
        next(formats.read((tmp_path / "a.dcm",), how, side=16, background=0))


def test_long_thin_pixels_take_no_more_memory_than_the_image_that_they_become():
    old = Grid((4000, 4000), (10.0, 0.001))
    new = old.at(1.0)
    plane = np.arange(4000, dtype=np.uint16).repeat(4000).reshape(old.size)
    tracemalloc.start()
    found = resample(plane, old, new)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.shape == new.size == (40_000, 4)
    np.testing.assert_allclose(found[5:-5:10, 0], np.arange(3999), atol=0.1)
    assert peak < 250e6, "rows first would take 640 MB"


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3] if len(sys.argv) > 3 else tempfile.mkstemp(".dcm")[1]))
