import colorsys
import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from kontrast.augment.intensity import Intensity, Tone, gaussian_blur

EVERYTHING = {
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.1,
    "grey": 0.2,
    "gamma": 0.3,
    "blur": 0.5,
    "noise": 0.05,
    "stain": 0.2,
    "gain": 0.2,
    "inversion": 0.3,
    "cutout": 0.5,
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
def test_at_probability_0_only_what_has_a_probability_of_its_own_may_change_an_image(channels):
    image = noise(4, channels, 6, 6, low=0.01)
    strengths = {**EVERYTHING, "grey": 0, "blur": 0, "noise": 0, "inversion": 0, "cutout": 0}
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


def test_the_hue_turns_evenly_to_either_side_by_as_much_as_was_asked_for():
    """The angle in the colour plane, as the standard library measures it."""
    pixel = (0.6, 0.45, 0.45)
    image = torch.tensor(pixel)[None, :, None, None].expand(2000, 3, 1, 1)
    view = Intensity(hue=0.1)(image, seeded())[:, :, 0, 0].tolist()
    angle = [math.atan2(q, i) for _, i, q in (colorsys.rgb_to_yiq(*p) for p in (pixel, *view))]
    turned = (np.array(angle[1:]) - angle[0]) / (2 * math.pi)
    assert stats.kstest(turned, stats.uniform(-0.1, 0.2).cdf).pvalue > 0.01
    assert abs(turned).max() < 0.102


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


def test_a_blur_without_a_kernel_is_refused():
    with pytest.raises(ValueError, match="the radius is 0"):
        Tone(sigma=torch.ones(2))


def test_blur_is_differentiable_in_image_and_sigma():
    image = noise(2, 1, 5, 4, dtype=torch.float64).requires_grad_()
    sigma = torch.tensor([0.7, 1.6], dtype=torch.float64, requires_grad=True)
    call = lambda image, sigma: gaussian_blur(image, sigma, radius=2)  # noqa: E731
    assert torch.autograd.gradcheck(call, (image, sigma), fast_mode=True)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_gain_gives_each_channel_a_factor_of_its_own(channels):
    image = torch.full((2000, channels, 1, 1), 0.5)
    factor = (Intensity(gain=0.3)(image, seeded()) / image)[:, :, 0, 0].double().numpy()
    for channel in factor.T:
        assert stats.kstest(channel, stats.uniform(0.7, 0.6).cdf).pvalue > 0.01
    if channels > 1:
        assert abs(np.corrcoef(factor[:, 0], factor[:, 1])[0, 1]) < 0.1


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_linear_colour_equals_its_steps_one_by_one(channels):
    """Gain, contrast around the mean, brightness and the negative, as plain arithmetic on each image."""
    image = noise(20, channels, 5, 5, low=0.4, high=0.6, dtype=torch.float64)
    strengths = {"gain": 0.1, "contrast": 0.2, "brightness": 0.2, "inversion": 0.5}
    tone = Intensity(**strengths).draw(image, seeded())
    weights = LUMINANCE.double() if channels == 3 else torch.full((channels,), 1 / channels, dtype=torch.float64)
    for i, found in enumerate(tone.image(image)):
        gained = image[i] * tone.gain[i][:, None, None]
        mean = (gained.mean((1, 2)) * weights).sum()
        expected = (mean + tone.contrast[i] * (gained - mean)) * tone.brightness[i]
        expected = 1 - expected if tone.inversion[i] else expected
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@CHANNELS
def test_as_many_images_turn_into_their_negative_as_asked(channels):
    image = noise(2000, channels, 3, 3)
    view = Intensity(inversion=0.3)(image, seeded())
    negative = (view - (1 - image)).abs().amax((1, 2, 3)) < 1e-6
    assert stats.binomtest(int(negative.sum()), 2000, 0.3).pvalue > 0.01
    torch.testing.assert_close(view[~negative], image[~negative])


def test_a_factor_on_a_stain_multiplies_its_density_and_leaves_the_others():
    """Pixels of one stain alone, in Beer and Lambert's law: intensity = exp(-density x colour)."""
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    density = np.array([[1.0, 0.0, 0.0], [0.0, 0.8, 0.0], [0.3, 0.5, 0.2]])
    image = torch.tensor(np.exp(-density @ stains)).T[None, :, None, :]
    factor, summand = np.array([1.2, 0.9, 1.0]), np.array([0.0, 0.05, 0.1])
    tone = Tone(stain=torch.tensor(np.stack([factor, summand], axis=1))[None])
    expected = np.exp(-(density * factor + summand) @ stains)
    np.testing.assert_allclose(tone.image(image)[0, :, 0].T.numpy(), expected, atol=1e-6)


def test_stains_are_drawn_evenly_and_apart():
    stain = Intensity(stain=0.2).draw(torch.zeros(2000, 3, 1, 1), seeded()).stain.double().numpy()
    for i in range(3):
        assert stats.kstest(stain[:, i, 0], stats.uniform(0.8, 0.4).cdf).pvalue > 0.01
        assert stats.kstest(stain[:, i, 1], stats.uniform(-0.05, 0.1).cdf).pvalue > 0.01
    assert abs(np.corrcoef(stain.reshape(-1, 6).T) - np.eye(6)).max() < 0.1


@CHANNELS
def test_cutout_replaces_a_rectangle_by_the_mean_as_often_as_asked(channels):
    image = noise(2000, channels, 20, 20)
    view = Intensity(cutout=0.4, cutout_side=(0.2, 0.5))(image, seeded())
    gone = (view != image).all(1)
    happened = gone.flatten(1).any(1)
    assert stats.binomtest(int(happened.sum()), 2000, 0.4).pvalue > 0.01
    for i in happened.nonzero()[:50].squeeze(1):
        rows, columns = gone[i].any(1).nonzero().squeeze(1), gone[i].any(0).nonzero().squeeze(1)
        assert gone[i][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert 3 <= len(rows) <= 11
        assert 3 <= len(columns) <= 11
        mean = image[i].mean((1, 2))
        torch.testing.assert_close(view[i][:, gone[i]], mean[:, None].expand(-1, int(gone[i].sum())))


def test_cutouts_lie_evenly_over_the_image():
    centre = Intensity(cutout=1, cutout_side=(0.5, 0.5)).draw(torch.zeros(2000, 1, 1, 1), seeded()).cutout.double()
    for axis in (0, 2):
        assert stats.kstest(centre[:, axis].numpy(), stats.uniform(-0.5, 1).cdf).pvalue > 0.01


@CHANNELS
def test_all_of_it_is_differentiable_in_the_image(channels):
    """In float64, with the draws held; values keep away from 0 and 1, where they are cut."""
    image = noise(2, channels, 4, 4, low=0.4, high=0.6, dtype=torch.float64).requires_grad_()
    gentle = {"brightness": 0.1, "contrast": 0.1, "saturation": 0.2, "hue": 0.05, "gamma": 0.1, "noise": 0.001}
    intensity = Intensity(**gentle, stain=0.1, gain=0.1, grey=0.5, inversion=0.5, blur=1.0, cutout=0.5)
    assert torch.autograd.gradcheck(lambda image: intensity(image, seeded()), image, fast_mode=True)


@CHANNELS
@pytest.mark.parametrize(
    ("field", "identity", "value"),
    [
        ("stain", [[[1, 0]] * 3], [[[1.1, 0.02]] * 3]),
        ("gain", None, None),
        ("saturation", [1], [0.8]),
        ("hue", [0], [0.3]),
        ("contrast", [1], [1.2]),
        ("brightness", [1], [0.9]),
        ("inversion", [0], [0.3]),
        ("gamma", [1], [1.2]),
        ("sigma", [0], [0.8]),
        ("noise", [0], [0.01]),
    ],
)
def test_each_field_has_an_identity_and_a_gradient(channels, field, identity, value):
    """The identity gives the image back; elsewhere the gradient is that of finite differences, in float64."""
    image = noise(2, channels, 5, 5, low=0.3, high=0.6, dtype=torch.float64)
    if field == "gain":
        identity, value = [[1.0] * channels], [[1.1] * channels]
    same = torch.tensor(identity, dtype=torch.float64).expand(2, *[-1] * (np.ndim(identity) - 1))
    neutral = Tone(**{field: same}, radius=2)
    torch.testing.assert_close(neutral.image(image, seeded()), image, rtol=0, atol=1e-9)
    start = torch.tensor(value, dtype=torch.float64).repeat(2, *[1] * (np.ndim(value) - 1)).requires_grad_()

    def view(parameter):
        return Tone(**{field: parameter}, radius=2).image(image, seeded())

    assert torch.autograd.gradcheck(view, start)
    if channels == 3 or field not in ("saturation", "hue", "stain"):
        [gradient] = torch.autograd.grad(view(start).square().sum(), start)
        assert gradient.abs().max() > 0


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
