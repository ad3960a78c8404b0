"""Corruptions of test images, against scipy and against their descriptions."""

from typing import get_args

import numpy as np
import pytest
import torch
from scipy import ndimage

from kontrast.evaluate.corruptions import CORRUPTIONS, Corruption, CorruptionName


@pytest.fixture
def image():
    return torch.rand(3, 2, 50, 50, generator=torch.Generator().manual_seed(0))


def test_every_name_has_a_corruption_and_no_other():
    assert sorted(get_args(CorruptionName)) == sorted(CORRUPTIONS)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(2, 1, 24, 24), (2, 3, 33, 33)])
def test_a_corruption_keeps_shape_and_range_changes_the_image_and_repeats_itself(name, shape):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    found = Corruption(name)(image)
    assert found.shape == image.shape
    assert (found >= 0).all()
    assert (found <= 1).all()
    assert (found - image).abs().mean() > 0.01
    assert torch.equal(found, Corruption(name)(image))


def test_blur_is_a_gaussian_of_a_fiftieth_of_the_side(image):
    expected = ndimage.gaussian_filter(image.numpy(), (0, 0, 1, 1), mode="mirror", truncate=3)
    np.testing.assert_allclose(Corruption("blur")(image), expected, atol=1e-5)


def test_contrast_is_a_quarter_about_the_mean_of_each_image(image):
    found = Corruption("contrast")(image)
    torch.testing.assert_close(found.mean((1, 2, 3)), image.mean((1, 2, 3)))
    torch.testing.assert_close(found.std((1, 2, 3)), image.std((1, 2, 3)) / 4)


def test_pixelating_averages_blocks(image):
    found = Corruption("pixelate")(image[..., :48, :48])
    blocks = image[..., :48, :48].unflatten(3, (16, 3)).unflatten(2, (16, 3)).mean((3, 5))
    torch.testing.assert_close(found, blocks.repeat_interleave(3, 2).repeat_interleave(3, 3))


def test_noise_is_new_for_each_image_and_as_strong_as_said():
    grey = torch.full((2, 1, 200, 200), 0.5)
    first, second = Corruption("noise")(grey)
    assert first.sub(0.5).std().item() == pytest.approx(0.15, rel=0.02)
    assert not torch.equal(first, second)


def test_a_name_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"one of blur, .* got 'fog'"):
        Corruption("fog")
