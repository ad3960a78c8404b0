"""The manifest, and how a sample is fetched, verified, kept and refused."""

import errno
import gzip
import hashlib
import os
from dataclasses import dataclass, replace

import numpy as np
import pytest

import kontrast.data as data
from kontrast.data import samples
from kontrast.data.samples import SAMPLES, check_apart, fetch, files, folder_of, listing
from kontrast.data.samples.sample import Pack, Pinned, Sample
from kontrast.data.samples.verify import check
from kontrast.data.sources import Address, Installed
from kontrast.data.unpack import SourceError
from kontrast.errors import InputError

DIGITS = SAMPLES["digits-5k"]
TEXT = b"some content"
DIGEST = hashlib.sha256(TEXT).hexdigest()
ONE_FILE = (Pinned(member="a.bin", digest=DIGEST),)


@dataclass
class Folder:
    """A source that writes what it is told to, and counts how often it was asked."""

    content: dict[str, bytes]
    fails: BaseException | None = None
    asked: int = 0

    def take(self, wanted, into):
        self.asked += 1
        for name, content in self.content.items():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            (into / name).write_bytes(content)
        if self.fails is not None:
            raise self.fails


@pytest.fixture
def made(monkeypatch):
    """Puts a sample "made" of files from some sources into the manifest."""

    def made(*sources, pinned=ONE_FILE, **more):
        packs = (Pack(sources=sources, files=pinned),)
        about = {"title": "t", "count": 1, "licence": "l", "citation": "c", "caveat": "c", "megabytes": 0.1}
        sample = Sample(**{"kind": "volumes", "packs": packs, **about, **more})
        monkeypatch.setitem(SAMPLES, "made", sample)
        return sample

    return made


def left_in(cache):
    return sorted(path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file())


def set_digest(content):
    lines = (f"{name} {hashlib.sha256(value).hexdigest()}\n" for name, value in sorted(content.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


# What there is


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_the_manifest_is_complete(name):
    sample = SAMPLES[name]
    assert all((sample.title, sample.licence, sample.citation, sample.caveat, sample.packs))
    assert sample.megabytes > 0
    assert sample.count > 0
    assert (sample.kind == "images") == (sample.build is not None)
    for pack in sample.packs:
        assert pack.sources
        assert all(len(bytes.fromhex(file.digest)) == 32 for file in pack.files)
        for path in (pack.root, pack.into, *(file.member for file in pack.files)):
            assert not path.startswith("/")
            assert ".." not in path


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_package_that_is_the_same_everywhere_is_pinned_whole(name):
    for source in (source for pack in SAMPLES[name].packs for source in pack.sources):
        differs = name == "nuclei" or not hasattr(source, "sha256")
        assert differs or len(bytes.fromhex(source.sha256)) == 32


def test_samples_are_listed_by_kind():
    kinds = [row.sample.kind for row in listing()]
    assert sum(before != kind for before, kind in zip(["", *kinds], kinds, strict=False)) == len(set(kinds))


def test_a_sample_that_is_not_there_is_refused_with_near_names():
    with pytest.raises(InputError, match="did you mean fashion-mnist"):
        fetch("fashion")
    with pytest.raises(InputError, match=r"did you mean .*pathmnist"):
        fetch("pathmnist-32")


# The digits, which the development requirements bring


def test_digits_are_5000_with_500_a_class_and_a_fixed_split():
    digits = data.open("sample:digits-5k")
    assert digits.pixels.shape == (5000, 1, 28, 28)
    assert digits.pixels.dtype == np.uint8
    assert np.bincount(digits.labels).tolist() == [500] * 10
    assert np.bincount(digits.labels[digits.parts == "test"]).tolist() == [100] * 10
    test = np.flatnonzero(digits.parts == "test")
    assert hashlib.sha256(",".join(map(str, test)).encode()).hexdigest()[:16] == "f3ed37e07966d10d"


def test_what_was_fetched_is_in_the_cache_and_needs_no_source(monkeypatch):
    def is_cached():
        return {row.name: row.is_cached for row in listing()}["digits-5k"]

    assert not is_cached()
    first = fetch("digits-5k")
    assert is_cached()
    (pack,) = DIGITS.packs
    monkeypatch.setitem(SAMPLES, "digits-5k", replace(DIGITS, packs=(replace(pack, sources=()),)))
    assert fetch("digits-5k") == first
    assert len(data.open("sample:digits-5k")) == 5000


def test_a_file_from_an_older_cache_is_verified_and_kept(cache):
    old = fetch("digits-5k")
    (old / "index.json").unlink()
    assert list(files("digits-5k").values()) == [old / "mnist_5k.csv.gz"]
    assert (old / "index.json").is_file()


def test_a_damaged_file_in_the_cache_is_refused_with_both_digests(cache):
    path = fetch("digits-5k") / "mnist_5k.csv.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[0] ^= 1
    path.write_bytes(gzip.compress(bytes(content), 1))
    with pytest.raises(InputError) as caught:
        fetch("digits-5k")
    assert DIGITS.packs[0].files[0].digest in str(caught.value)
    assert hashlib.sha256(content).hexdigest() in str(caught.value)
    assert f"remove {path.parent}" in str(caught.value)


# Digests


def test_the_digest_is_of_the_content_whatever_the_compression(tmp_path):
    for level in (1, 9):
        (tmp_path / "a.gz").write_bytes(gzip.compress(TEXT, level))
        check(Pinned(member="a.gz", digest=DIGEST), tmp_path, "x", "y")


def test_an_archive_is_hashed_as_it_is(tmp_path):
    packed = gzip.compress(TEXT)
    (tmp_path / "a.tar.gz").write_bytes(packed)
    check(Pinned(member="a.tar.gz", digest=hashlib.sha256(packed).hexdigest()), tmp_path, "x", "y")


def test_where_only_md5_is_published_it_is_compared(tmp_path):
    (tmp_path / "a").write_bytes(TEXT)
    check(Pinned(member="a", digest=hashlib.md5(TEXT).hexdigest()), tmp_path, "x", "y")
    with pytest.raises(InputError, match=rf"must have MD5 {'0' * 32}, and has {hashlib.md5(TEXT).hexdigest()}"):
        check(Pinned(member="a", digest="0" * 32), tmp_path, "x", "y")


@pytest.mark.parametrize("content", [b"<html>", gzip.compress(TEXT * 1000)[:-9]])
def test_a_file_that_is_not_gzip_or_breaks_off_is_refused(content, tmp_path):
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(InputError, match="must be a gzip file"):
        check(Pinned(member="a.gz", digest=DIGEST), tmp_path, "x", "y")


@pytest.mark.parametrize("change", ["none", "missing", "more", "renamed", "other", "left out"])
def test_one_digest_stands_for_all_files_of_a_pattern(change, tmp_path):
    content = {"a/1.png": b"1", "a/b/2.png": b"2"}
    pinned = Pinned(member="a/*.png", but=("*_flip*",), digest=set_digest(content))
    changed = {
        "none": content,
        "missing": {"a/1.png": b"1"},
        "more": {**content, "a/3.png": b"3"},
        "renamed": {"a/1.png": b"1", "a/b/3.png": b"2"},
        "other": {**content, "a/1.png": b"!"},
        "left out": {**content, "a/1_flip.png": b"1", "b/1.png": b"1", "a/1.txt": b"1"},
    }[change]
    for name, value in changed.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(value)
    if change in ("none", "left out"):
        check(pinned, tmp_path, "x", "y")
    else:
        with pytest.raises(InputError, match=f"{pinned.digest}, and has {set_digest(changed)}"):
            check(pinned, tmp_path, "x", "y")


def test_files_are_hashed_again_only_when_size_or_time_changed(made, cache):
    made(Folder({"a.bin": TEXT}))
    path = fetch("made") / "a.bin"
    before = path.stat()
    path.write_bytes(b"SOME CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    fetch("made")
    os.utime(path)
    with pytest.raises(InputError, match=DIGEST):
        fetch("made")


def test_other_pins_are_not_served_by_what_was_verified_against_the_old_ones(made):
    made(Folder({"a.bin": TEXT}))
    fetch("made")
    made(Folder({"a.bin": TEXT}), pinned=(Pinned(member="a.bin", digest="0" * 64),))
    with pytest.raises(InputError, match="0" * 64):
        fetch("made")


def test_a_file_that_was_deleted_from_the_cache_is_named(made):
    made(Folder({"a.bin": TEXT}))
    (fetch("made") / "a.bin").unlink()
    with pytest.raises(InputError, match=r"a\.bin must have .*no such file.*remove"):
        fetch("made")


# Sources in turn, and what goes wrong


def test_when_no_source_has_it_every_one_is_named_with_its_reason(made):
    made(Installed("no_such_package"), Address("http://127.0.0.1:9"))
    with pytest.raises(InputError, match=r"no_such_package \(not installed\); http://127.0.0.1:9 \(.*refused"):
        fetch("made")


def test_what_a_failing_source_left_is_not_mixed_with_the_next_one(made, cache):
    content = {"a/1.png": b"1"}
    first, second = Folder({"a/2.png": b"2"}, fails=SourceError("broke off")), Folder(content)
    made(first, second, pinned=(Pinned(member="a/*.png", digest=set_digest(content)),))
    assert list(files("made")) == ["a/1.png"]
    assert left_in(cache) == ["samples/made/a/1.png", "samples/made/index.json"]


def test_a_wrong_checksum_is_an_error_and_no_other_source_is_asked(made, cache):
    wrong, right = Folder({"a.bin": b"other"}), Folder({"a.bin": TEXT})
    made(wrong, right)
    with pytest.raises(InputError) as caught:
        fetch("made")
    assert DIGEST in str(caught.value)
    assert hashlib.sha256(b"other").hexdigest() in str(caught.value)
    assert right.asked == 0
    assert left_in(cache) == []


def test_a_download_that_fails_leaves_nothing_and_a_later_one_succeeds(made, serve, tmp_path, cache):
    site = tmp_path / "site"
    site.mkdir()
    made(Address(serve(site)))
    with pytest.raises(InputError, match="404"):
        fetch("made")
    assert left_in(cache) == []
    assert os.listdir(cache / "samples") == []
    (site / "a.bin").write_bytes(TEXT)
    assert files("made")["a.bin"].read_bytes() == TEXT


def test_an_interrupt_leaves_no_half_sample(made, cache):
    made(Folder({"a.bin": TEXT}, fails=KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        fetch("made")
    assert not folder_of("made").exists()
    assert os.listdir(cache / "samples") == []


@pytest.mark.parametrize(
    ("code", "says"), [(errno.ENOSPC, "there is no space left for them"), (errno.EROFS, "must be a folder that can be")]
)
def test_a_disk_that_cannot_be_written_is_one_sentence_and_leaves_nothing(code, says, made, cache):
    made(Folder({"a.bin": TEXT[:3]}, fails=OSError(code, os.strerror(code))))
    with pytest.raises(InputError, match=rf"files of sample made.*{says}.*KONTRAST_CACHE"):
        fetch("made")
    assert os.listdir(cache / "samples") == []


def test_a_disk_with_less_space_than_needed_is_refused_before_anything_is_fetched(made, cache):
    source = Folder({"a.bin": TEXT})
    made(source, megabytes=1e12)
    with pytest.raises(InputError, match="no space left"):
        fetch("made")
    assert source.asked == 0


def test_a_cache_that_is_no_folder_is_said_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="must be a folder that can be written"):
        fetch("digits-5k", tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]


def test_others_may_read_what_one_has_fetched(made):
    made(Folder({"a/b.bin": TEXT}), pinned=(Pinned(member="a/b.bin", digest=DIGEST),))
    umask = os.umask(0o022)
    try:
        folder = fetch("made")
    finally:
        os.umask(umask)
    assert [path.stat().st_mode & 0o777 for path in (folder, folder / "a", folder / "a" / "b.bin")] == [
        0o755, 0o755, 0o644,
    ]  # fmt: skip


def test_several_packages_make_one_sample(made, monkeypatch):
    sample = made(Folder({"x/a.bin": TEXT}))
    packs = tuple(
        Pack(sources=(Folder({"x/a.bin": TEXT}),), root="x", into=into, files=(Pinned(member="a.bin", digest=DIGEST),))
        for into in ("one", "two")
    )
    monkeypatch.setitem(SAMPLES, "made", replace(sample, packs=packs))
    assert list(files("made")) == ["one/a.bin", "two/a.bin"]
    assert all(path.is_absolute() and path.read_bytes() == TEXT for path in files("made").values())


# What is no set of images


def test_a_sample_of_volumes_is_refused_as_data_and_says_where_its_files_are(made):
    made(Folder({"a.bin": TEXT}))
    with pytest.raises(InputError, match=r"sample made holds volumes.*after `kontrast data get made`"):
        data.open("sample:made")
    folder = fetch("made")
    with pytest.raises(InputError, match=rf"holds volumes.*its files are in {folder}, and .* sample:made/FILE$"):
        data.open("sample:made")


def test_a_volume_of_a_sample_opens_as_its_slices(made):
    nibabel = pytest.importorskip("nibabel")
    values = np.random.default_rng(0).integers(1, 900, (6, 7, 4)).astype(np.int16)
    content = nibabel.Nifti1Image(values, np.eye(4)).to_bytes()
    made(Folder({"a.nii": content}), pinned=(Pinned(member="a.nii", digest=hashlib.sha256(content).hexdigest()),))
    opened = data.open("sample:made/a.nii")
    assert opened.name == "sample:made/a.nii"
    assert len(opened) == 4
    assert data.open("sample:made/.").names == tuple(f"a.nii#z{number}" for number in range(4))


@pytest.mark.parametrize("inside", ["none.nii", "../made/..", "/etc"])
def test_what_is_no_file_of_a_sample_is_refused(made, inside):
    made(Folder({"a.bin": TEXT}))
    with pytest.raises(InputError, match=r"has no .*choose from a\.bin"):
        data.open(f"sample:made/{inside}")


# What must not be combined


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("sample:digits-5k", "sample:mnist-10k"),
        ("sample:pathmnist", "sample:pathmnist-64"),
        ("sample:colin27/ch2.nii.gz", "sample:brain-patches"),
        ("sample:organamnist", "sample:organsmnist-224"),
        ("sample:emoji", "sample:emoji/google"),
        ("sample:emoji/google/img", "sample:emoji/twitter"),
    ],
)
def test_samples_of_one_origin_are_kept_apart_in_both_orders(first, second):
    one, other = (name.removeprefix("sample:") for name in (first, second))
    with pytest.raises(InputError, match=f"{one} and {other} hold the same images"):
        check_apart(first, second)
    with pytest.raises(InputError, match="one cannot train and the other test"):
        check_apart(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("sample:digits-5k", "sample:digits-5k"),
        ("sample:digits-5k", "sample:fashion-mnist"),
        ("sample:cifar10", "sample:cifar100"),
        ("sample:pathmnist", "sample:bloodmnist"),
        ("digits-5k", "mnist-10k"),
        ("images/", "sample:digits-5k"),
        ("sample:gone", "sample:digits-5k"),
        ("sample:emoji/google", "sample:emoji/twitter"),
    ],
)
def test_other_data_may_be_combined(first, second):
    check_apart(first, second)


# What really comes over the network


@pytest.mark.network
@pytest.mark.parametrize("name", sorted(set(SAMPLES) - {"cifar10", "cifar100"}))
def test_every_sample_can_be_fetched_and_holds_what_it_says(name):
    sample = SAMPLES[name]
    found = files(name)
    opened = None if sample.build is None else samples.open_sample(name)
    assert len(found) == sample.count if opened is None else len(opened.names) == sample.count
    if sample.prepare is not None:
        captions = (folder_of(name) / "captions.tsv").read_text().splitlines()
        paths = {line.partition("\t")[0] for line in captions[1:]}
        assert paths == set(opened.names)
        assert all(opened.annotations.texts)


@pytest.mark.network
def test_fashion_mnist_is_fetched_and_has_7000_images_a_class():
    fashion = data.open("sample:fashion-mnist")
    assert np.bincount(fashion.labels).tolist() == [7000] * 10
    assert (fashion.parts == "test").sum() == 10000


@pytest.mark.network
def test_all_digits_of_the_small_sample_are_in_the_large_one_which_is_why_they_are_kept_apart():
    few, many = (
        {bytes(image) for image in data.open(f"sample:{name}").pixels.reshape(-1, 784)}
        for name in ("digits-5k", "mnist-10k")
    )
    assert few <= many
    assert len(many) == 10000


@pytest.mark.network
@pytest.mark.parametrize("name", ["stamps", "emoji"])
def test_no_group_and_no_identical_picture_stands_on_both_sides(name):
    pictures = data.open(f"sample:{name}")
    train, test = data.hold_out(pictures)
    found = files(name)
    content = [hashlib.sha256(found[path].read_bytes()).hexdigest() for path in pictures.names]
    assert not {content[row] for row in train} & {content[row] for row in test}
    assert not set(pictures.groups[train]) & set(pictures.groups[test])
