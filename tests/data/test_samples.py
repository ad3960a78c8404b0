import gzip
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import kontrast.data as data
from kontrast.data.samples import SAMPLES, SampleFile, fetch, listing, verified
from kontrast.data.sources import Address, Installed
from kontrast.errors import InputError

DIGITS = SAMPLES["digits-5k"]


def test_digits_are_5000_with_500_a_class_and_a_fixed_split():
    digits = data.open("sample:digits-5k")
    assert digits.pixels.shape == (5000, 1, 28, 28)
    assert digits.pixels.dtype == np.uint8
    assert np.bincount(digits.labels).tolist() == [500] * 10
    assert np.bincount(digits.labels[digits.parts == "test"]).tolist() == [100] * 10
    test = np.flatnonzero(digits.parts == "test")
    assert hashlib.sha256(",".join(map(str, test)).encode()).hexdigest()[:16] == "f3ed37e07966d10d"


def test_what_was_fetched_is_in_the_cache_and_needs_no_source(monkeypatch):
    assert not listing()[0].is_cached
    first = fetch("digits-5k")
    assert listing()[0].is_cached
    monkeypatch.setitem(SAMPLES, "digits-5k", replace(DIGITS, sources=()))
    assert fetch("digits-5k") == first


def test_a_damaged_file_in_the_cache_is_refused_with_both_digests(cache):
    fetch("digits-5k")
    (path,) = (cache / "samples" / "digits-5k").iterdir()
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[0] ^= 1
    path.write_bytes(gzip.compress(bytes(content), 1))
    with pytest.raises(InputError) as caught:
        fetch("digits-5k")
    assert DIGITS.files[0].sha256 in str(caught.value)
    assert hashlib.sha256(content).hexdigest() in str(caught.value)


def test_the_digest_is_of_the_content_whatever_the_compression():
    file = SampleFile(member="a.gz", sha256=hashlib.sha256(b"text").hexdigest())
    assert verified(file, gzip.compress(b"text", 1), "x") == verified(file, gzip.compress(b"text", 9), "x") == b"text"


def test_a_file_that_is_not_gzip_is_refused():
    with pytest.raises(InputError, match="must be a gzip file"):
        verified(SampleFile(member="a.gz", sha256=""), b"<html>", "x")


def test_when_no_source_has_it_every_one_is_named_with_its_reason(monkeypatch):
    sources = (Installed("no_such_package"), Address("http://127.0.0.1:9"))
    monkeypatch.setitem(SAMPLES, "digits-5k", replace(DIGITS, sources=sources))
    with pytest.raises(InputError, match=r"no_such_package \(not installed\); http://127.0.0.1:9 \(.*refused"):
        fetch("digits-5k")


def test_a_sample_that_is_not_there_is_refused_with_near_names():
    with pytest.raises(InputError, match="did you mean fashion-mnist"):
        fetch("fashion")


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_the_manifest_is_complete(name):
    sample = SAMPLES[name]
    assert all((sample.title, sample.licence, sample.citation, sample.caveat, sample.sources))
    assert all(len(bytes.fromhex(file.sha256)) == 32 for file in sample.files)
    assert not any(Path(file.member).is_absolute() or ".." in file.member for file in sample.files)


def test_fashion_is_read_from_its_idx_files():
    def idx(offset, values):
        return bytes(offset) + np.asarray(values, np.uint8).tobytes()

    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    content = {
        "x/train-images-idx3-ubyte.gz": idx(16, pixels[:2]),
        "x/train-labels-idx1-ubyte.gz": idx(8, [9, 0]),
        "x/t10k-images-idx3-ubyte.gz": idx(16, pixels[2:]),
        "x/t10k-labels-idx1-ubyte.gz": idx(8, [5]),
    }
    listing = SAMPLES["fashion-mnist"].build(content)
    np.testing.assert_array_equal(listing.pixels[..., 0], pixels)
    assert [listing.annotations.classes[code] for code in listing.annotations.labels] == [
        "Ankle boot", "T-shirt/top", "Sandal",
    ]  # fmt: skip
    assert listing.annotations.parts.tolist() == ["train", "train", "test"]
    assert listing.names == ("train/0", "train/1", "test/0")


@pytest.mark.network
def test_fashion_mnist_is_fetched_and_has_7000_images_a_class():
    fashion = data.open("sample:fashion-mnist")
    assert np.bincount(fashion.labels).tolist() == [7000] * 10
    assert (fashion.parts == "test").sum() == 10000


def test_a_cache_that_cannot_be_written_still_gives_the_sample(tmp_path):
    (tmp_path / "file").write_text("")
    assert len(fetch("digits-5k", tmp_path / "file")) == 1
    assert os.listdir(tmp_path) == ["file"]
