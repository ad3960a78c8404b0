import colorsys
import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from kontrast.augment.intensity import Intensity, gaussian_blur

EVERYTHING = {
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.1,
    "grey": 0.2,
    "gamma": 0.3,
    "blur": 0.5,
    "noise": 0.05,
}
LUMINANCE = torch.tensor([0.299, 0.587, 0.114])
CHANNELS = pytest.mark.parametrize("channels", [1, 3])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, low=0.0, high=1.0, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=seeded(seed), dtype=dtype) * (high - low) + low


def luminance(image):
    return (image * LUMINANCE[None, :, None, None]).sum(1)


@CHANNELS
def test_without_strengths_the_image_stays_as_it_is(channels):
    image = noise(4, channels, 6, 6)
    torch.testing.assert_close(Intensity()(image), image, rtol=0, atol=1e-6)


@CHANNELS
def test_at_probability_0_only_blur_noise_and_grey_may_change_an_image(channels):
    image = noise(4, channels, 6, 6)
    strengths = {**EVERYTHING, "grey": 0, "blur": 0, "noise": 0}
    torch.testing.assert_close(Intensity(probability=0, **strengths)(image), image, rtol=0, atol=2e-6)


@CHANNELS
def test_values_stay_within_0_and_1_and_shapes_as_they_are(channels):
    image = noise(64, channels, 9, 7)
    for strength in (0.5, 2.0):
        view = Intensity(brightness=strength, contrast=strength, gamma=1, blur=0.5, noise=0.5)(image, seeded())
        assert view.shape == image.shape
        assert (float(view.min()), float(view.max())) == (0, 1)


@CHANNELS
def test_brightness_multiplies_by_a_factor_that_is_even_over_its_range(channels):
    image = torch.full((4000, channels, 1, 1), 0.5)
    factor = Intensity(brightness=0.4)(image, seeded())[:, 0, 0, 0] / 0.5
    assert stats.kstest(factor.double().numpy(), stats.uniform(0.6, 0.8).cdf).pvalue > 0.01


def test_as_many_images_change_as_the_probability_says():
    image = torch.full((4000, 1, 1, 1), 0.5)
    changed = int((Intensity(probability=0.8, brightness=0.4)(image, seeded()) != 0.5).sum())
    assert stats.binomtest(changed, 4000, 0.8).pvalue > 0.01


@CHANNELS
def test_contrast_scales_around_the_mean_and_keeps_it(channels):
    image = noise(500, channels, 6, 6, low=0.4, high=0.6)
    view = Intensity(contrast=0.5)(image, seeded())
    before, after = (luminance(t) if channels == 3 else t[:, 0] for t in (image, view))
    torch.testing.assert_close(after.mean((1, 2)), before.mean((1, 2)), rtol=0, atol=1e-5)
    factor = after.std((1, 2)) / before.std((1, 2))
    assert stats.kstest(factor.double().numpy(), stats.uniform(0.5, 1).cdf).pvalue > 0.01
    centre = before.mean((1, 2))[:, None, None]
    torch.testing.assert_close(after, centre + factor[:, None, None] * (before - centre), rtol=0, atol=1e-5)


def test_brightness_and_contrast_are_drawn_apart_and_contrast_keeps_the_brightened_mean():
    image = noise(2000, 1, 5, 5, low=0.2, high=0.3)
    view = Intensity(brightness=0.5, contrast=0.9)(image, seeded())
    bright = view.mean((1, 2, 3)) / image.mean((1, 2, 3))
    contrast = view.std((1, 2, 3)) / image.std((1, 2, 3)) / bright
    assert stats.kstest(bright.double().numpy(), stats.uniform(0.5, 1).cdf).pvalue > 0.01
    assert stats.kstest(contrast.double().numpy(), stats.uniform(0.1, 1.8).cdf).pvalue > 0.01
    assert abs(np.corrcoef(bright, contrast)[0, 1]) < 0.1


def test_saturation_scales_the_distance_from_grey():
    image = noise(300, 3, 4, 4, low=0.3, high=0.7)
    view = Intensity(saturation=0.5)(image, seeded())
    before, after = (t - luminance(t)[:, None] for t in (image, view))
    factor = (after * before).sum((1, 2, 3)) / before.square().sum((1, 2, 3))
    torch.testing.assert_close(after, factor[:, None, None, None] * before, rtol=0, atol=1e-5)
    assert stats.kstest(factor.double().numpy(), stats.uniform(0.5, 1).cdf).pvalue > 0.01


def test_a_turn_of_the_hue_keeps_the_luminance_and_changes_the_colour():
    image = noise(300, 3, 4, 4, low=0.4, high=0.6)
    view = Intensity(hue=0.5)(image, seeded())
    torch.testing.assert_close(luminance(view), luminance(image), rtol=0, atol=1e-5)
    assert (view - image).abs().amax((1, 2, 3)).median() > 0.05


def test_the_hue_turns_by_as_much_as_was_asked_for_and_not_more():
    """Hue as colorsys measures it on its hexagon, near enough to a circle for pure colours."""
    image = torch.tensor([0.6, 0.45, 0.45])[None, :, None, None].expand(500, 3, 1, 1)
    view = Intensity(hue=0.1)(image, seeded())[:, :, 0, 0].tolist()
    turned = np.array([(colorsys.rgb_to_hsv(*pixel)[0] + 0.5) % 1 - 0.5 for pixel in view])
    assert 0.07 < turned.max() < 0.14
    assert -0.14 < turned.min() < -0.07


def test_grey_gives_equal_channels_of_the_same_luminance_as_often_as_asked():
    image = noise(2000, 3, 3, 3)
    view = Intensity(grey=0.2)(image, seeded())
    grey = (view - view.mean(1, keepdim=True)).abs().amax((1, 2, 3)) < 1e-5
    assert stats.binomtest(int(grey.sum()), 2000, 0.2).pvalue > 0.01
    torch.testing.assert_close(luminance(view)[grey], luminance(image)[grey], rtol=0, atol=1e-5)
    torch.testing.assert_close(view[~grey], image[~grey], rtol=0, atol=1e-5)


def test_an_image_of_one_channel_has_no_colour_to_lose():
    image = noise(8, 1, 4, 4)
    torch.testing.assert_close(Intensity(saturation=0.9, hue=0.5, grey=1)(image), image, rtol=0, atol=1e-6)


@CHANNELS
def test_gamma_is_a_power_whose_logarithm_is_even_over_its_range(channels):
    image = torch.full((4000, channels, 1, 1), 0.5)
    view = Intensity(gamma=0.3)(image, seeded())[:, 0, 0, 0].double()
    exponent = (view.log() / math.log(0.5)).log()
    assert stats.kstest(exponent.numpy(), stats.uniform(-0.3, 0.6).cdf).pvalue > 0.01


def test_gamma_leaves_black_black_and_white_white_and_its_gradient_finite():
    image = torch.tensor([0.0, 1.0]).repeat(8, 1)[:, None, None, :].requires_grad_()
    view = Intensity(gamma=0.5)(image, seeded())
    torch.testing.assert_close(view, image, rtol=0, atol=1e-3)
    view.sum().backward()
    assert image.grad.isfinite().all()


def test_noise_has_a_level_of_its_own_in_every_image_even_up_to_the_largest():
    image = torch.full((1000, 1, 32, 32), 0.5)
    level = (Intensity(noise=0.1)(image, seeded()) - image).std((1, 2, 3))
    assert stats.kstest(level.double().numpy(), stats.uniform(0, 0.1).cdf).pvalue > 0.01


@CHANNELS
@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
def test_blur_equals_scipy_also_at_the_border(channels, sigma):
    image = noise(2, channels, 24, 20)
    found = gaussian_blur(image, torch.tensor([sigma, 0.5]), radius=8)
    for i, own in enumerate((sigma, 0.5)):
        for c in range(channels):
            expected = ndimage.gaussian_filter(image[i, c].double().numpy(), own, mode="mirror", radius=8)
            np.testing.assert_allclose(found[i, c].numpy(), expected, atol=1e-5)


def test_blur_of_an_image_smaller_than_its_kernel_keeps_its_mean_value():
    flat = gaussian_blur(torch.full((1, 1, 3, 2), 0.4), torch.tensor([5.0]), radius=20)
    torch.testing.assert_close(flat, torch.full((1, 1, 3, 2), 0.4))


def test_as_many_images_are_blurred_as_asked_each_by_its_own_sigma():
    image = noise(1, 1, 16, 16).expand(1000, 1, 16, 16)
    view = Intensity(blur=0.5, sigma=(0.5, 2))(image, seeded())
    left = view.std((1, 2, 3)) / image.std((1, 2, 3))
    assert stats.binomtest(int((left < 0.999).sum()), 1000, 0.5).pvalue > 0.01
    blurred = left[left < 0.999]
    assert blurred.max() / blurred.min() > 1.5


def test_blur_is_differentiable_in_image_and_sigma():
    image = noise(2, 1, 5, 4, dtype=torch.float64).requires_grad_()
    sigma = torch.tensor([0.7, 1.6], dtype=torch.float64, requires_grad=True)
    call = lambda image, sigma: gaussian_blur(image, sigma, radius=2)  # noqa: E731
    assert torch.autograd.gradcheck(call, (image, sigma), fast_mode=True)


@CHANNELS
def test_all_of_it_is_differentiable_in_the_image(channels):
    """In float64, with the draws held; values keep away from 0 and 1, where they are cut."""
    image = noise(2, channels, 4, 4, low=0.4, high=0.6, dtype=torch.float64).requires_grad_()
    gentle = {"brightness": 0.1, "contrast": 0.1, "saturation": 0.2, "hue": 0.05, "gamma": 0.1, "noise": 0.001}
    intensity = Intensity(**gentle, grey=0.5, blur=1.0)
    assert torch.autograd.gradcheck(lambda image: intensity(image, seeded()), image, fast_mode=True)


@CHANNELS
def test_every_image_has_its_own_draw(channels):
    image = noise(1, channels, 8, 8).expand(12, channels, 8, 8)
    views = Intensity(**EVERYTHING)(image, seeded()).flatten(1)
    assert torch.pdist(views).min() > 1e-3


def test_a_seed_fixes_the_views_and_another_changes_them():
    image, intensity = noise(4, 3, 8, 8), Intensity(**EVERYTHING)
    views = [intensity(image, seeded(seed)) for seed in (3, 3, 4)]
    assert torch.equal(views[0], views[1])
    assert (views[0] - views[2]).abs().amax(dim=(1, 2, 3)).min() > 1e-3
