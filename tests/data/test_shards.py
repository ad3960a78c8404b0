"""Shards of WebDataset, made as tar files by hand."""

import io
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

import kontrast.data as data
from kontrast.data import shards
from kontrast.errors import InputError


def png(number, dtype=np.uint8):
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, np.iinfo(dtype).max, (6, 6)).astype(dtype)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def shard(tmp_path, tarred):
    def shard(entries, name="pairs.tar", mode="w"):
        path = tmp_path / name
        path.write_bytes(tarred(entries, mode=mode))
        return path

    return shard


def test_images_and_texts_of_one_key_are_pairs_in_whatever_order_they_come(shard):
    entries = {"b.txt": b"two", "b.png": png(1), "./a.png": png(0), "./a.txt": b"one", "sub/c.PNG": png(2)}
    opened = data.open(shard({**entries, "sub/c.txt": b"three"}))
    assert opened.names == ("a.png", "b.png", "sub/c.PNG")
    assert opened.texts == (("one",), ("two",), ("three",))
    assert opened.labels is None or opened.labels.tolist() == []
    for number in range(3):
        pixels = np.asarray(Image.open(io.BytesIO(png(number))))
        np.testing.assert_array_equal(opened.pixels[opened.rows[number], 0], pixels)


def test_the_shards_of_a_folder_are_one_set_although_keys_repeat(shard, tmp_path):
    for number in range(3):
        shard({"000.png": png(number), "000.txt": f"text {number}".encode()}, name=f"s-{number}.tar")
    (tmp_path / "README.md").write_text("about")
    opened = data.open(tmp_path)
    assert opened.names == ("s-0/000.png", "s-1/000.png", "s-2/000.png")
    assert opened.texts == (("text 0",), ("text 1",), ("text 2",))
    assert opened.labels is None


def test_a_folder_of_images_with_a_tar_beside_them_is_a_folder_of_images(shard, tmp_path, save):
    shard({"000.png": png(0)})
    save(tmp_path / "a.png")
    assert data.open(tmp_path).names == ("a.png",)


def test_16_bit_grey_keeps_its_values(shard):
    opened = data.open(shard({"a.png": png(0, np.uint16), "a.txt": b"x"}))
    assert opened.pixels.dtype == np.uint16
    np.testing.assert_array_equal(opened.pixels[0, 0], np.asarray(Image.open(io.BytesIO(png(0, np.uint16)))))


def test_a_second_opening_unpacks_nothing_and_a_changed_shard_is_unpacked_anew(shard, cache, monkeypatch):
    path = shard({"a.png": png(0), "a.txt": b"one"})
    first = data.open(path)
    with monkeypatch.context() as patch:
        patch.setattr(shards, "_unpack", lambda *_: pytest.fail("unpacked again"))
        assert data.open(path).texts == first.texts
    shard({"a.png": png(0), "a.txt": b"other"})
    os.utime(path, ns=(1, 1))
    assert data.open(path).texts == (("other",),)


def test_nothing_but_images_and_texts_leaves_the_tar(shard, cache):
    entries = {"a.png": png(0), "a.txt": b"x", "a.pkl": b"cos\nsystem\n.", "a.json": b"{}", "a.seg.png": png(1)}
    entries |= {
        "._a.png": b"resource",
        "b.png": ("link", "/etc/passwd"),
        "c.txt": ("hard", "a.txt"),
        "d.png": ("link", "a.png"),
    }
    assert data.open(shard(entries)).names == ("a.png",)
    left = sorted(path.name for path in (cache / "shards").rglob("*") if path.is_file())
    assert left == ["a.png", "a.txt", "index.json"]


@pytest.mark.parametrize("name", ["../a.png", "x/../../a.txt", "/tmp/a.png", "x\\a.png", "c:/a.png"])
def test_a_path_that_leads_out_is_refused_and_nothing_is_written(shard, cache, tmp_path, name):
    with pytest.raises(InputError, match="stays below its folder"):
        data.open(shard({"b.png": png(0), name: b"x"}))
    assert not any(path.is_file() for path in cache.rglob("*"))
    assert not (cache / "a.png").exists()


def test_files_that_are_too_large_are_refused(shard, monkeypatch):
    monkeypatch.setattr(shards, "MOST_OF_A_PICTURE", 1 << 20)
    big = bytes((1 << 20) + 1)
    for name in ("a.png", "a.txt"):
        with pytest.raises(InputError, match=r"at most 1 MiB; .* 1,048,577 bytes"):
            data.open(shard({name: big}))


def test_a_sparse_file_that_claims_to_be_an_image_is_not_unpacked(tmp_path):
    path = tmp_path / "pairs.tar"
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("a.png")
        entry.type = tarfile.GNUTYPE_SPARSE
        archive.addfile(entry)
    with pytest.raises(InputError, match="holds no image"):
        data.open(path)


@pytest.mark.parametrize("damage", ["gz", "cut", "text"])
def test_a_damaged_or_compressed_shard_is_refused_in_a_sentence(shard, damage, cache):
    path = shard({"a.png": png(0), "a.txt": b"x" * 3000}, mode="w:gz" if damage == "gz" else "w")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:2500])
    if damage == "text":
        path.write_text("no tar at all")
    with pytest.raises(InputError, match="whole and not compressed"):
        data.open(path)
    assert not list((cache / "shards").glob("*"))


def test_a_file_and_a_folder_of_one_name_are_refused(shard):
    with pytest.raises(InputError, match="whole and not compressed"):
        data.open(shard({"a.png": png(0), "a.png/b.png": png(1)}))


def test_a_shard_without_images_is_refused(shard):
    with pytest.raises(InputError, match="holds no image"):
        data.open(shard({"a.txt": b"x"}))
