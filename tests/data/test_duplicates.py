"""Near-duplicates are found among real images, and different images are left alone."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from kontrast.data.audit import duplicates
from kontrast.data.audit.leaks import find_copies
from kontrast.data.audit.likeness import looks, unlike
from kontrast.data.images import ImageSet


@pytest.fixture(scope="module")
def real(digits):
    """300 different digits, 30 of each class."""
    return digits.pixels[digits.rows[:: len(digits) // 300][:300]]


def made(pixels):
    count = len(pixels)
    return ImageSet(
        name="made",
        pixels=pixels,
        rows=np.arange(count),
        names=tuple(f"image/{row}" for row in range(count)),
        labels=None,
        classes=(),
        groups=None,
        parts=None,
        skipped=(),
        fingerprint="",
    )


def jpeg(quality):
    def encode(image):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return encode


def shifted(by):
    def shift(image):
        framed = np.pad(image, 4)
        side = len(image)
        return framed[4 + by : 4 + by + side, 4 - by : 4 - by + side]

    return shift


def toned(gamma=1.0, contrast=1.0, brighter=0):
    def tone(image):
        values = 255 * (image / 255) ** gamma * contrast + brighter
        return np.clip(values.round(), 0, 255).astype(np.uint8)

    return tone


CHANGES = {
    "JPEG 95": (jpeg(95), 0.98),
    "JPEG 75": (jpeg(75), 0.98),
    "JPEG 50": (jpeg(50), 0.9),
    "shift by 1": (shifted(1), 0.95),
    "shift by 2": (shifted(2), 0.9),
    "gamma 0.8": (toned(gamma=0.8), 0.95),
    "gamma 1.25": (toned(gamma=1.25), 0.95),
    "contrast 0.8": (toned(contrast=0.8), 0.99),
    "brighter": (toned(brighter=20), 0.99),
}


@pytest.mark.parametrize("name", CHANGES)
def test_copies_that_were_changed_a_little_are_found_and_nothing_else(real, name):
    change, recall = CHANGES[name]
    copied = np.arange(0, len(real), 6)
    others = np.stack([change(real[at, 0]) for at in copied])[:, None]
    found = duplicates.near(looks(made(np.concatenate([real, others]))))
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    planted = {(int(at), len(real) + number) for number, at in enumerate(copied)}
    assert len(pairs & planted) >= recall * len(planted)
    assert pairs <= planted
    assert (np.diff(found.unlike) >= 0).all()


def test_different_digits_are_no_duplicates(digits):
    assert len(duplicates.near(looks(digits.take(np.arange(0, 5000, 2))))) == 0


def test_a_copy_scaled_and_centred_on_black_is_found(real):
    small = [np.asarray(Image.fromarray(each).resize((56, 56), Image.Resampling.BICUBIC)) for each in real[:40, 0]]
    wide = np.zeros((80, 1, 96, 96), np.uint8)
    for at, image in enumerate(real[:40, 0]):
        wide[at, 0, 6:90, 6:90] = np.asarray(Image.fromarray(image).resize((84, 84), Image.Resampling.BICUBIC))
        wide[40 + at, 0, 20:76, 20:76] = small[at]
    found = duplicates.near(looks(made(wide)))
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    planted = {(at, 40 + at) for at in range(40)}
    assert len(pairs & planted) >= 38
    assert pairs <= planted


def test_eight_and_sixteen_bit_look_the_same(real):
    eight = looks(made(real))
    sixteen = looks(made(real.astype(np.uint16) * 257))
    assert (unlike(eight, sixteen) < 1e-5).all()
    found = duplicates.near_across(sixteen.take(np.arange(20)), eight)
    assert found.first.tolist() == found.second.tolist()
    assert sorted(found.first) == list(range(20))


def test_grey_and_colour_of_one_picture_are_duplicates_but_two_colours_of_one_shape_are_not():
    rng = np.random.default_rng(0)
    soft = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (6, 6), np.uint8)).resize((64, 64), Image.Resampling.BICUBIC))
        for _ in range(40)
    ]
    grey = np.repeat(np.stack(soft)[:, None], 3, axis=1)
    tinted = grey.copy()
    tinted[:, 0] = np.minimum(255, grey[:, 0].astype(int) + 12)
    tinted[:, 2] = np.maximum(0, grey[:, 2].astype(int) - 12)
    found = duplicates.near(looks(made(np.concatenate([grey, tinted]))))
    assert set(zip(found.first.tolist(), found.second.tolist(), strict=True)) == {(at, 40 + at) for at in range(40)}
    disc = np.add.outer((np.arange(64) - 32) ** 2, (np.arange(64) - 32) ** 2) < 600
    hearts = np.full((3, 3, 64, 64), 255, np.uint8)
    for at, colour in enumerate(((220, 30, 30), (40, 60, 220), (30, 160, 60))):
        hearts[at][:, disc] = np.array(colour)[:, None]
    assert len(duplicates.near(looks(made(hearts)))) == 0


def test_turned_copies_are_found_where_they_are_asked_for(real):
    turned = np.concatenate([np.rot90(real[:1], axes=(2, 3)), real[7:8, :, :, ::-1], np.rot90(real[9:10], 3, (2, 3))])
    seen = looks(made(np.concatenate([real[:120], turned])))
    assert len(duplicates.near(seen)) == 0
    found = duplicates.near(seen, turned=True)
    assert found.turned.all()
    assert {(0, 120), (7, 121), (9, 122)} <= set(zip(found.first.tolist(), found.second.tolist(), strict=True))


def test_images_in_a_row_are_one_cluster():
    codes = duplicates.clusters(6, np.array([0, 1, 4]), np.array([1, 2, 5]))
    assert codes[0] == codes[1] == codes[2] != codes[3]
    assert codes[4] == codes[5] != codes[3]


def test_constant_images_and_single_ones_have_no_duplicates(image_set):
    assert len(duplicates.near(looks(made(np.full((5, 1, 16, 16), 7, np.uint8))))) == 0
    assert len(duplicates.near(looks(made(np.zeros((1, 3, 16, 16), np.uint8))))) == 0


def test_the_search_in_groups_of_columns_finds_the_largest():
    rng = np.random.default_rng(3)
    for count in (5, 9, 200, 1100, 2000):
        products = rng.uniform(-1, 1, (30, count)).astype(np.float32)
        found = duplicates._largest(products)
        wanted = np.sort(products, axis=1)[:, ::-1][:, : found.shape[1]]
        values = np.where(found >= 0, np.take_along_axis(products, np.maximum(found, 0), axis=1), -1)
        assert np.array_equal(np.sort(values, axis=1)[:, ::-1], np.where(wanted >= 0.5, wanted, -1))


def jpeg(pixels, quality):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


COPIES = (
    lambda pixels: jpeg(pixels, 75),
    lambda pixels: np.rint(255 * (pixels / 255) ** 0.85).astype(np.uint8),
    lambda pixels: np.roll(pixels, 1, axis=0),
    lambda pixels: jpeg(pixels, 50),
    lambda pixels: np.clip(pixels.astype(int) + 9, 0, 255).astype(np.uint8),
)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_several_copies_of_one_picture_do_not_hide_each_other(digits, count):
    chosen = digits.take(np.arange(0, 5000, 10))
    pixels = chosen.pixels[chosen.rows]
    originals = np.arange(0, 500, 25)
    planted = np.array([change(pixels[at, 0])[None] for at in originals for change in COPIES[:count]])
    whole = chosen.take(np.concatenate([np.arange(500), np.repeat(originals, count)]))
    whole = replace(whole, pixels=np.concatenate([pixels, planted]), rows=np.arange(len(whole)))
    codes = find_copies(whole).joined()
    found = codes[500:] == codes[np.repeat(originals, count)]
    assert found.mean() >= 0.9
    assert len(np.unique(codes[:500])) == 500
