import os
import subprocess
import sys
import time
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image, ImageOps

import kontrast.data as data
from kontrast.data.cache import cache_root
from kontrast.errors import InputError


@pytest.fixture
def folder(tmp_path, save):
    for number in range(6):
        save(tmp_path / "images" / f"{number}.png", number)
    return tmp_path / "images"


def stored(cache):
    return sorted(path.name for path in (cache / "images").iterdir()) if (cache / "images").is_dir() else []


def test_a_second_run_reads_no_file(folder, monkeypatch):
    first = data.open(folder)
    monkeypatch.setattr(Image, "open", None)
    second = data.open(folder)
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert first.fingerprint == second.fingerprint


def test_the_pixels_are_a_read_only_memory_map(folder):
    pixels = data.open(folder).pixels
    assert isinstance(pixels.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        pixels[0] = 0


def test_other_times_and_another_place_find_the_same_cache_without_decoding(folder, cache, tmp_path, monkeypatch):
    data.open(folder)
    before = stored(cache)
    os.utime(folder / "3.png", (1, 1))
    folder = folder.rename(tmp_path / "moved")
    monkeypatch.setattr(ImageOps, "exif_transpose", None)
    data.open(folder)
    assert stored(cache) == before


def test_one_changed_pixel_makes_another_cache(folder, cache):
    first = data.open(folder)
    pixels = np.array(Image.open(folder / "3.png"))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(folder / "3.png")
    second = data.open(folder)
    assert len(stored(cache)) == 2
    assert first.fingerprint != second.fingerprint
    assert (first.pixels != second.pixels).sum() == 1


def test_the_same_images_under_other_names_have_another_fingerprint(folder):
    first = data.open(folder)
    (folder / "5.png").rename(folder / "7.png")
    assert data.open(folder).fingerprint != first.fingerprint


def test_an_interrupt_while_decoding_leaves_nothing_behind(folder, cache, monkeypatch):
    real, calls = ImageOps.exif_transpose, []

    def interrupted(image, **options):
        calls.append(image)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(image, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ImageOps, "exif_transpose", interrupted)
        with pytest.raises(KeyboardInterrupt):
            data.open(folder)
    assert stored(cache) == []
    assert len(data.open(folder)) == 6


def test_a_killed_process_leaves_nothing_that_is_taken_for_a_cache(folder, cache):
    script = (
        "import os, signal, sys\nfrom PIL import ImageOps\nimport kontrast.data as data\n"
        "ImageOps.exif_transpose = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\ndata.open(sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder)], check=False)
    assert done.returncode == -9
    (left,) = stored(cache)
    opened = data.open(folder)
    assert len(opened) == 6
    assert opened.pixels.any(axis=(1, 2, 3)).all()
    old = time.time() - 7 * 24 * 3600
    os.utime(cache / "images" / left, (old, old))
    data.open(folder, channels=3)
    assert left not in stored(cache)


def test_a_full_disk_is_told_in_megabytes_before_anything_is_written(folder, cache, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(100, 100, 100))
    with pytest.raises(InputError, match=r"need 1 MB of disk.*KONTRAST_CACHE"):
        data.open(folder)
    assert stored(cache) == []


def test_space_that_runs_out_while_writing_is_told_and_leaves_nothing(folder, cache, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(InputError, match=r"no space left.*KONTRAST_CACHE"):
        data.open(folder)
    assert stored(cache) == []


def test_a_cache_that_cannot_be_a_folder_is_refused(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="KONTRAST_CACHE"):
        data.open(folder, cache=tmp_path / "file" / "cache")


def test_unreadable_images_are_named_and_skipped_and_remembered(folder, caplog):
    (folder / "2.png").write_bytes(b"not an image")
    whole = (folder / "4.png").read_bytes()
    (folder / "4.png").write_bytes(whole[: len(whole) - 30])
    for _ in range(2):
        caplog.clear()
        opened = data.open(folder, max_unreadable=0.4)
        assert opened.names == ("0.png", "1.png", "3.png", "5.png")
        assert [name for name, _ in opened.skipped] == ["2.png", "4.png"]
        assert "2 of 6 files could not be read" in caplog.text
        assert "4.png" in caplog.text
        first = opened.batch(np.array([2])).image[0, 0].numpy()
        np.testing.assert_array_equal(first, np.asarray(Image.open(folder / "3.png")))


def test_more_unreadable_images_than_allowed_are_refused_even_from_the_cache(folder):
    (folder / "2.png").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"1 of 6 are \(2.png .*--max-unreadable"):
        data.open(folder)
    assert len(data.open(folder, max_unreadable=0.5)) == 5
    with pytest.raises(InputError, match="--max-unreadable"):
        data.open(folder)


def test_a_folder_of_nothing_but_unreadable_images_is_refused_at_any_limit(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no")
    with pytest.raises(InputError, match="1 of 1"):
        data.open(tmp_path, max_unreadable=1.0)


def test_the_cache_lies_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.delenv("KONTRAST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "kontrast"
