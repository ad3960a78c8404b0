"""Stored features are those that would be computed, and the cache is never in the way."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from kontrast.data.images import ImageSet, fingerprint
from kontrast.evaluate import stored
from kontrast.evaluate.features import features
from kontrast.evaluate.stored import stored_features
from kontrast.nn.encoders import encoder


def images(seed=0, count=9):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 1, 16, 16)).astype(np.uint8)
    rows, names = np.arange(count), tuple(map(str, range(count)))
    return ImageSet(
        name="noise",
        pixels=pixels,
        rows=rows,
        names=names,
        labels=None,
        classes=(),
        groups=None,
        parts=None,
        skipped=(),
        fingerprint=fingerprint(pixels, rows, names),
    )


@pytest.fixture
def built():
    torch.manual_seed(0)
    return encoder("test_efficientnet", channels=1, size=16, stem="standard")


@pytest.fixture
def passes(built):
    """How many images the encoder has seen, batch by batch."""
    seen = []
    built.net.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    return seen


def files(folder):
    return sorted((folder / "features").glob("*"))


def test_a_second_request_is_read_and_equals_the_first(built, passes, tmp_path):
    first = stored_features(built, images(), cache=tmp_path)
    assert passes == [9]
    again = stored_features(built, images(), cache=tmp_path)
    assert passes == [9]
    assert np.array_equal(first, again)
    assert np.array_equal(again, features(built, images()))


@pytest.mark.parametrize("changed", ["weights", "buffers", "mean", "pixels", "rows", "order"])
def test_whatever_changes_the_features_is_computed_anew(changed, built, tmp_path):
    data = images()
    stored_features(built, data, cache=tmp_path)
    if changed == "weights":
        next(built.net.parameters()).data[0] += 1
    elif changed == "buffers":
        next(built.net.buffers()).data[0] += 1
    elif changed == "mean":
        built.spec = replace(built.spec, mean=(0.1,))
        built.mean.fill_(0.1)
    elif changed == "pixels":
        data = images(seed=1)
    else:
        data = data.take(np.arange(5) if changed == "rows" else np.arange(9)[::-1])
    assert np.array_equal(stored_features(built, data, cache=tmp_path), features(built, data))
    assert len(files(tmp_path)) == 2


def test_a_subset_of_other_labels_is_the_same_images(built, passes, tmp_path):
    stored_features(built, images(), cache=tmp_path)
    stored_features(built, images().with_labels(np.zeros(9, np.int64), ("a",)), cache=tmp_path)
    assert passes == [9]


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "other shape", "other type", "objects"])
def test_a_damaged_file_is_computed_again_and_mended(damage, built, passes, tmp_path):
    expected = stored_features(built, images(), cache=tmp_path)
    [file] = files(tmp_path)
    whole = file.read_bytes()
    if damage in ("other shape", "other type", "objects"):
        wrong = {"other shape": expected[:-1], "other type": expected.astype(np.float64)}
        np.save(file, wrong.get(damage, np.array([{}], dtype=object)), allow_pickle=True)
    else:
        file.write_bytes({"truncated": whole[:-7], "empty": b"", "text": b"features"}[damage])
    assert np.array_equal(stored_features(built, images(), cache=tmp_path), expected)
    assert passes == [9, 9]
    assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_changes_no_answer(built, tmp_path):
    (tmp_path / "features").write_text("a file where the folder should be")
    assert np.array_equal(stored_features(built, images(), cache=tmp_path), features(built, images()))


def test_a_disk_that_fills_up_leaves_no_part_of_a_file(built, tmp_path, monkeypatch):
    def full(file, array, **_):
        file.write(b"a part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    assert np.array_equal(stored_features(built, images(), cache=tmp_path), features(built, images()))
    assert files(tmp_path) == []


def test_the_least_recently_used_make_room(built, passes, tmp_path, monkeypatch):
    size = features(built, images()).nbytes + 128
    monkeypatch.setattr(stored, "LARGEST", 2 * size + 128)
    for seed in (0, 1):
        stored_features(built, images(seed), cache=tmp_path)
    for age, file in enumerate(sorted(files(tmp_path), key=lambda file: file.stat().st_mtime_ns, reverse=True)):
        os.utime(file, (1000 - age, 1000 - age))
    stored_features(built, images(0), cache=tmp_path)
    stored_features(built, images(2), cache=tmp_path)
    assert sum(file.stat().st_size for file in files(tmp_path)) <= stored.LARGEST
    passes.clear()
    stored_features(built, images(0), cache=tmp_path)
    assert passes == []
    stored_features(built, images(1), cache=tmp_path)
    assert passes == [9]


def test_images_without_a_fingerprint_are_not_kept(built, tmp_path):
    stored_features(built, replace(images(), fingerprint=""), cache=tmp_path)
    assert not (tmp_path / "features").exists()
