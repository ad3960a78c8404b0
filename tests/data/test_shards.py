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
    with pytest.raises(InputError, match=r"at most 1 MiB; .* 1,048,577 bytes"):
        data.open(shard({"a.png": bytes((1 << 20) + 1)}))


def test_a_text_that_is_too_large_is_left_out_by_reason_and_no_more_of_it_is_written_than_shows_that(shard, cache):
    entries = {"a.png": png(0), "a.txt": b"x" * (3 << 20), "b.png": png(1), "b.txt": b"two"}
    opened = data.open(shard(entries), max_unreadable=0.5)
    assert opened.names == ("b.png",)
    assert opened.skipped == (("a.png", "text of more than a megabyte"),)
    assert [path.stat().st_size for path in (cache / "shards").rglob("a.txt")] == [(1 << 20) + 1]


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


def headers(content):
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return [entry.offset for entry in archive]


def damaged(content, damage):
    """Ways in which `tarfile` takes the rest of a tar for its end: in the header of the second file, or before it."""
    second = headers(content)[1]
    if damage == "checksum":
        return content[: second + 5] + b"!" + content[second + 6 :]
    if damage == "zeroed header":
        return content[:second] + bytes(512) + content[second + 512 :]
    return content[: second + {"cut header": 100, "cut between files": 0, "cut in a file": 700}[damage]]


@pytest.mark.parametrize(
    "damage", ["checksum", "zeroed header", "cut header", "cut between files", "cut in a file", "no end", "joined"]
)
def test_a_tar_that_would_seem_shorter_than_it_is_is_refused_and_nothing_of_it_is_kept(shard, cache, damage):
    path = shard({"a.png": png(0), "b.png": png(1), "c.png": png(2)})
    content = path.read_bytes()
    if damage == "no end":
        broken = content.rstrip(b"\0")
        broken += bytes(-len(broken) % 512)
    elif damage == "joined":
        broken = content + content
    else:
        broken = damaged(content, damage)
    path.write_bytes(broken)
    with pytest.raises(InputError, match="whole and not compressed"):
        data.open(path)
    assert not list((cache / "shards").glob("*"))
    path.write_bytes(content)
    assert len(data.open(path)) == 3


def test_a_tar_ends_with_one_block_of_zeros_or_many(shard):
    path = shard({"a.png": png(0), "b.png": png(1)})
    content = path.read_bytes().rstrip(b"\0")
    content += bytes(-len(content) % 512)
    for blocks in (1, 2, 5000):
        path.write_bytes(content + bytes(512 * blocks))
        os.utime(path, ns=(blocks, blocks))
        assert len(data.open(path)) == 2


def test_a_header_of_negative_size_is_refused_and_not_read_for_ever(shard, tmp_path):
    entry = tarfile.TarInfo("a.png")
    entry.size = -1024
    path = tmp_path / "pairs.tar"
    first = tarfile.TarInfo("b.png")
    first.size = 0
    path.write_bytes(first.tobuf(tarfile.GNU_FORMAT) + entry.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(InputError, match="whole and not compressed"):
        data.open(path)


@pytest.mark.parametrize(("kind", "size"), [(b"0", 1 << 80), (b"0", 1 << 60), (b"L", 1 << 62), (b"x", 1 << 80)])
def test_a_header_that_claims_any_size_is_refused_in_a_sentence(tmp_path, kind, size):
    first, entry = tarfile.TarInfo("b.txt"), tarfile.TarInfo("a.json")
    entry.type, entry.size = kind, size
    path = tmp_path / "pairs.tar"
    path.write_bytes(first.tobuf(tarfile.GNU_FORMAT) + entry.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(InputError, match="whole and not compressed"):
        data.open(path)


def test_suffixes_may_be_in_capitals(shard):
    entries = {"a.PNG": png(0), "a.TXT": b"one", "b.png": png(1), "b.Txt": b"two", "c.PNG": png(2), "c.txt": b"three"}
    assert data.open(shard(entries)).texts == (("one",), ("two",), ("three",))


@pytest.mark.parametrize("times", [1, 2])
def test_files_whose_keys_hold_a_dot_are_counted_and_named_whenever_the_shard_is_opened(shard, caplog, times):
    entries = {"a.png": png(0), "a.seg.png": png(1), "a.json": b"{}", "a.cls.json": b"{}", "1.2.840.png": png(2)}
    path = shard(entries | {"1.2.840.txt": b"x", "x.1/b.png": png(3), "2.5.png": png(3)})
    for _ in range(times):
        caplog.clear()
        assert data.open(path).names == ("a.png", "x.1/b.png")
    assert "4 files of" in caplog.text
    assert "a.seg.png, 1.2.840.png, 1.2.840.txt, ...: write keys without dots" in caplog.text


def test_without_texts_a_shard_has_the_images_of_one_without_texts(shard, caplog):
    images = {"a.png": png(0), "b.png": png(1)}
    plain = data.open(shard(images, name="plain.tar"))
    texts = {"a.txt": b"one", "b.txt": bytes(3 << 20), "1.2.txt": b"x"}
    path = shard(images | texts)
    opened = data.open(path, texts=False)
    assert caplog.text == ""
    assert opened.texts is None
    assert (opened.names, opened.fingerprint) == (plain.names, plain.fingerprint)
    assert data.open(path, max_unreadable=0.5).texts == (("one",),)


def test_names_of_files_whose_keys_hold_a_dot_are_aliased_too(shard, caplog):
    data.open(shard({"a.png": png(0), "1.2.840.png": png(2)}), alias_paths=True)
    assert "1 files of" in caplog.text
    assert "1.2.840" not in caplog.text


def test_a_shard_of_nothing_but_keys_with_dots_is_refused_with_their_names(shard):
    with pytest.raises(
        InputError, match=r"no image, but 2 files whose keys hold a dot \(1\.2\.840\.png, 1\.2\.840\.txt"
    ):
        data.open(shard({"1.2.840.png": png(0), "1.2.840.txt": b"x"}))


def test_a_file_and_a_folder_of_one_name_are_refused(shard):
    with pytest.raises(InputError, match="whole and not compressed"):
        data.open(shard({"a.png": png(0), "a.png/b.png": png(1)}))


def test_a_shard_without_images_is_refused(shard):
    with pytest.raises(InputError, match="holds no image"):
        data.open(shard({"a.txt": b"x"}))
