"""A picture of samples shows each of them, in order."""

import numpy as np
import pytest
import torch
from PIL import Image

from kontrast.train.pictures import sheets, write_sheet


def written(folder, images):
    write_sheet(folder, 3, images)
    with Image.open(folder / "samples/epoch_00003.png") as picture:
        return np.asarray(picture)


def test_images_stand_row_by_row_with_a_pixel_between_them_and_keep_their_values(tmp_path):
    images = torch.arange(10).view(10, 1, 1, 1).expand(10, 1, 4, 4) / 255
    found = written(tmp_path, images)
    assert found.shape == (2 * 5 - 1, 8 * 5 - 1)
    for number in range(10):
        top, left = number // 8 * 5, number % 8 * 5
        assert (found[top : top + 4, left : left + 4] == number).all()


@pytest.mark.parametrize(("channels", "shape"), [(1, (9, 9)), (2, (9, 9)), (3, (9, 9, 3)), (5, (9, 9, 3))])
def test_any_number_of_channels_is_shown(channels, shape, tmp_path):
    assert written(tmp_path, torch.rand(1, channels, 9, 9)).shape == shape


def test_large_images_are_averaged_to_tiles(tmp_path):
    images = torch.zeros(2, 1, 128, 128)
    images[:, :, ::2] = 1
    found = written(tmp_path, images)
    assert found.shape == (64, 129)
    assert set(np.unique(found[:, :64])) <= {127, 128}


def test_pictures_are_found_by_their_epoch_in_order(tmp_path):
    assert sheets(tmp_path) == {}
    for epoch in (10, 2):
        write_sheet(tmp_path, epoch, torch.rand(1, 1, 4, 4))
    assert list(sheets(tmp_path)) == [2, 10]
