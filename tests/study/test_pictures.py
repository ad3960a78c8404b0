"""Thumbnails show what the images hold, whatever their depth."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from kontrast import data
from kontrast.study.pictures import LOSSLESS_UP_TO, encoded, picture, sheet, shown


def image_set(pixels):
    """Images `(n, c, h, w)` from an array as Kontrast opens it."""
    return data.open([pixels[i] for i in range(len(pixels))])


def opened(found):
    image = Image.open(BytesIO(found.data))
    assert (image.width, image.height) == (found.width, found.height)
    assert Image.MIME[image.format] == found.media
    return np.asarray(image)


def test_a_tiny_picture_keeps_every_value():
    pixels = np.random.default_rng(0).integers(0, 256, (1, 1, 28, 28), dtype=np.uint8)
    found = opened(picture(image_set(pixels), 0, side=96))
    assert np.array_equal(found[..., 0], pixels[0, 0])
    assert (found[..., 0] == found[..., 2]).all()


def test_colours_stay_in_their_channels():
    pixels = np.zeros((1, 3, 16, 16), dtype=np.uint8)
    pixels[0, 1] = 200
    assert (opened(picture(image_set(pixels), 0, side=96)) == (0, 200, 0)).all()


@pytest.mark.parametrize(("dtype", "low", "high"), [(np.uint16, 1000, 3000), (np.float32, 0.2, 0.4)])
def test_sixteen_bits_and_floats_are_stretched_over_what_the_image_holds(dtype, low, high):
    ramp = np.linspace(low, high, 32 * 32).reshape(1, 32, 32).astype(dtype)
    found = np.asarray(shown(ramp, side=32))
    assert found.dtype == np.uint8
    assert found.min() == 0
    assert found.max() == 255
    assert (np.diff(found.ravel().astype(int)) >= 0).all()


def test_an_image_of_one_value_has_a_picture():
    assert np.asarray(shown(np.full((1, 8, 8), 700, dtype=np.uint16), side=8)).max() == 0


def test_a_large_image_is_made_small_and_never_a_small_one_large():
    large, small = np.zeros((1, 1, 200, 200), np.uint8), np.zeros((1, 1, 20, 20), np.uint8)
    assert picture(image_set(large), 0, side=96).width == 96
    assert picture(image_set(small), 0, side=96).width == 20


def test_each_tile_of_a_sheet_is_its_image_in_order():
    pixels = np.stack([np.full((1, 12, 12), 20 * number, dtype=np.uint8) for number in range(7)])
    found = opened(sheet(image_set(pixels), np.array([6, 0, 3, 1, 2]), tile=12, columns=3))
    assert found.shape[:2] == (24, 36)
    for place, number in enumerate([6, 0, 3, 1, 2]):
        row, column = divmod(place, 3)
        tile = found[12 * row + 4 : 12 * row + 8, 12 * column + 4 : 12 * column + 8, 0]
        assert abs(tile.astype(int) - 20 * number).max() <= 3


def test_a_picture_just_above_the_limit_is_compressed():
    noise = np.random.default_rng(0).integers(0, 256, (LOSSLESS_UP_TO + 1, LOSSLESS_UP_TO + 1), dtype=np.uint8)
    image = Image.fromarray(noise)
    assert len(encoded(image).data) < len(encoded(image, lossless=True).data)
