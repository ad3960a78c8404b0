"""Damaged volume files, by the thousand: images of the promised kind or an ordinary error, in bounded time and memory.

A child process reads them under a limit of its memory; it is this file, run as a script: count, seed, folder.
"""

import bz2
import faulthandler
import gzip
import os
import random
import re
import resource
import struct
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import kontrast

SECONDS = 20
"""For one file; a slow machine may stall."""
MEMORY = 3 << 30
"""Bytes beyond what the imports take."""
ENOUGH = 1 << 22
"""Values of one file that are looked at."""
SPECIAL = [
    *(struct.pack("<h", value) for value in (-32768, -1, 0, 1, 2, 7, 8, 512, 4096, 32767)),
    *(struct.pack("<i", value) for value in (-(2**31), -1, 0, 2**31 - 1)),
    *(struct.pack("<q", value) for value in (-(2**63), -1, 2**31, 2**40, 2**63 - 1)),
    *(struct.pack("<f", value) for value in (float("nan"), float("inf"), -float("inf"), 0, 1e-30, 1e30, -1, 3e38)),
]
WORDS = [
    "-1", "0", "1", "99999999999999999999", "nan", "inf", "none", "1e308", "1e-308", "", "gzip", "bzip2", "raw", "text",
    "hex", "short", "float", "double", "uchar", "uint64", "block", "big", "little", "(1,0,0)", "(0,0,0)", "(nan,1,1)",
    "RGB-color", "list", "vector", "RAS", "LIST", "../a.raw", "/dev/zero", "%d.raw 1 9999999 1", ":=", ":", "\0", "é",
]  # fmt: skip


@pytest.mark.parametrize("count", [200, pytest.param(25_000, marks=pytest.mark.slow)])
def test_damaged_volumes_give_images_or_an_ordinary_error(tmp_path, count, capsys):
    pytest.importorskip("nibabel")
    pytest.importorskip("nrrd")
    command = [sys.executable, __file__, str(count), "1", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(kontrast.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    with capsys.disabled():
        print(f"\n{done.stdout.splitlines()[-1] if done.returncode == 0 else done.stdout[-500:]}")
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert "a long message" not in done.stdout


def originals() -> dict[str, bytes]:
    """Small whole files by name: crops of nibabel's own volumes, and made ones for what these do not have."""
    import nibabel

    folder = Path(nibabel.__file__).parent / "tests" / "data"
    found = {}
    for name, crop in (
        ("example4d.nii.gz", np.s_[40:56, 40:58, 8:14]),
        ("example_nifti2.nii.gz", np.s_[4:16, 4:14, :6]),
    ):
        if (folder / name).is_file():
            image = nibabel.load(folder / name)
            found[name] = type(image)(np.asarray(image.dataobj)[crop], image.affine, image.header).to_bytes()
    values = np.random.default_rng(0).integers(0, 200, (12, 14, 6)).astype(np.int16)
    found["made.nii"] = nibabel.Nifti1Image(values.astype(np.float32), np.diag([1, 2, -3, 1])).to_bytes()
    colours = np.ascontiguousarray(values[..., None].repeat(3, axis=-1).astype(np.uint8))
    voxels = colours.view(np.dtype([(name, "u1") for name in "RGB"]))[..., 0]
    found["colour.nii"] = nibabel.Nifti1Image(voxels, np.eye(4)).to_bytes()
    files = {}
    for name, content in found.items():
        stem = name.partition(".")[0]
        files |= {f"{stem}.nii": content, f"{stem}.nii.gz": gzip.compress(content, 1)}
    return files | nrrds(values)


def nrrds(values) -> dict[str, bytes]:
    raw = values.tobytes(order="F")
    text = " ".join(map(str, values.ravel(order="F"))).encode()
    packed = {"raw": raw, "gzip": gzip.compress(raw, 1), "bzip2": bz2.compress(raw), "text": text}
    head = (
        "NRRD0004\n# made\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 12 14 6\n"
        "space directions: (0.5,0,0) (0,0.5,0) (0,0,2)\nkinds: domain domain domain\nendian: little\n"
        "space origin: (1,2,3)\nencoding: {}\n"
    )
    files = {f"{name}.nrrd": head.format(name).encode() + b"\n" + data for name, data in packed.items()}
    return files | {"beside.nhdr": (head.format("raw") + "data file: beside.raw\n").encode()}


def damaged(chance: random.Random, name: str, content: bytes, others: list[bytes]) -> bytes:
    """The file with one to four changes; packed ones are often changed inside."""
    if name.endswith(".gz") and chance.random() < 0.6:
        return gzip.compress(changed(chance, name, gzip.decompress(content), others), 1)
    return changed(chance, name, content, others)


def changed(chance: random.Random, name: str, content: bytes, others: list[bytes]) -> bytes:
    made = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        header = 560 if not name.endswith(("nrrd", "nhdr")) else 260
        place = chance.randrange(min(header, len(made)) if chance.random() < 0.8 else len(made)) if made else 0
        kind = chance.choice(["bit", "byte", "special", "special", "cut", "insert", "remove", "splice", "word", "word"])
        if kind == "word" and name.endswith(("nrrd", "nhdr")):
            made = reworded(chance, made)
        elif kind == "bit" and made:
            made[place] ^= 1 << chance.randrange(8)
        elif kind == "byte" and made:
            made[place] = chance.randrange(256)
        elif kind in ("special", "word"):
            value = chance.choice(SPECIAL)
            place -= place % len(value)
            made[place : place + len(value)] = value if chance.random() < 0.8 else value[::-1]
        elif kind == "cut" and chance.random() < 0.4:
            del made[place if chance.random() < 0.3 else chance.randrange(len(made) + 1) :]
        elif kind == "insert":
            made[place:place] = chance.randbytes(chance.choice([1, 2, 4, 100]))
        elif kind == "remove":
            del made[place : place + chance.choice([1, 2, 4, 100])]
        elif kind == "splice" and chance.random() < 0.3:
            made[place:] = chance.choice(others)[place:]
    return bytes(made)


def reworded(chance: random.Random, content: bytearray) -> bytearray:
    """Text of a header with a word changed, or a line left out or doubled."""
    head, gap, data = bytes(content).partition(b"\n\n")
    lines = head.decode("latin-1").split("\n")
    number = chance.randrange(len(lines))
    if chance.random() < 0.7:
        words = re.split(r"([ (),]+)", lines[number])
        words[chance.randrange(len(words))] = chance.choice(WORDS)
        lines[number] = "".join(words)
    else:
        lines[number : number + 1] = [lines[number]] * chance.choice([0, 2])
    return bytearray("\n".join(lines).encode("latin-1", "replace") + gap + data)


def outcome(path: Path, how) -> str:
    """What became of a file; anything but images of the promised kind and ordinary errors is raised."""
    from kontrast.data import formats
    from kontrast.data.nifti import open_stack, read_mask

    try:
        contents = formats.look((path,), how)
        assert 0 < len(contents.headers) == len(contents.parts) == len(set(contents.parts))
        seen = number = 0
        for image in formats.read((path,), how, side=16, background=0):
            header = contents.headers[number]
            assert image.shape == (header.height, header.width, header.channels), "another shape than look says"
            assert image.dtype == (np.uint8 if header.channels == 3 else np.uint16)
            seen, number = seen + image.size, number + 1
            if seen > ENOUGH:
                return "images"
        assert number == len(contents.headers), "another number than look says"
        stack = open_stack(path, how)
        if contents.headers[0].channels == 1:
            labels = np.ones((len(stack.kept), *stack.grid.size), np.uint8)
            assert stack.restack(labels).shape == stack.shape
            read_mask(path, stack)
        return "images"
    except (AssertionError, MemoryError, RecursionError, SystemError, Warning):
        raise
    except Exception as error:
        return type(error).__name__ if len(str(error)) < 400 else "a long message"


def main(count: int, seed: int, folder: Path) -> None:
    from kontrast.data.reading import Reading

    files = originals()
    (folder / "beside.raw").write_bytes(bytes(2 * 12 * 14 * 6))
    used = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    warnings.simplefilter("error")
    names, outcomes, slowest, begun = sorted(files), Counter(), 0.0, time.monotonic()
    for number in range(count):
        chance = random.Random(f"{seed}/{number}")
        name = chance.choice(names)
        path = folder / f"damaged-{name}"
        path.write_bytes(damaged(chance, name, files[name], list(files.values())))
        how = Reading(
            window=chance.choice(["auto", "full", "brain", "-50:90"]),
            axis=chance.choice(["axial", "coronal", "sagittal"]),
            spacing=chance.choice([None, None, 0.7, 1.5]),
            keep_empty=chance.random() < 0.3,
        )
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        started = time.monotonic()
        try:
            outcomes[outcome(path, how)] += 1
        except BaseException:
            print(f"file {number} of seed {seed}, {name}, {how}")
            raise
        slowest = max(slowest, time.monotonic() - started)
        faulthandler.cancel_dump_traceback_later()
    took = time.monotonic() - begun
    print(
        f"{count} damaged volumes, seed {seed}: {took:.0f} s, slowest {slowest:.1f} s; {dict(outcomes.most_common())}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
