import inspect

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from kontrast.augment import policies
from kontrast.augment.policies import POLICIES, RandAugment, ct, digits, histology, mri, natural, ultrasound, xray
from kontrast.commands.assemble import EncoderOptions
from kontrast.commands.data import Preview

EVERY = pytest.mark.parametrize("name", sorted(POLICIES))
NEVER_MIRRORED = {"ct": ct, "digits": digits, "mri": mri, "xray": xray}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=seeded(seed))


def corner(n, side=32):
    """Black but for a bar at the left and a bright block at its top: no turn of it is its mirror image."""
    image = torch.zeros(n, 1, side, side)
    image[:, :, 4 : side - 4, 6:10] = 0.6
    image[:, :, 4:10, 6:22] = 0.9
    return image


def likeness(views, reference):
    """Correlation of each view with one image."""
    a, b = (t.flatten(1) - t.flatten(1).mean(1, keepdim=True) for t in (views, reference))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


@EVERY
@pytest.mark.parametrize("size", [28, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_views_have_the_size_asked_for_and_values_in_0_to_1(name, size, channels):
    policy = POLICIES[name](size)
    view = policy(noise(16, channels, 40, 40), seeded())
    assert policy.size == size
    assert view.shape == (16, channels, size, size)
    assert view.dtype == torch.float32
    assert view.min() >= 0
    assert 0.5 < view.max() <= 1


@EVERY
@pytest.mark.parametrize(("dtype", "top"), [(torch.uint8, 255), (torch.uint16, 65535)])
def test_integers_and_floats_of_the_same_image_give_the_same_views(name, dtype, top):
    stored = torch.randint(0, top + 1, (4, 3, 32, 32), generator=seeded()).to(dtype)
    policy = POLICIES[name](32)
    found, expected = policy(stored, seeded(1)), policy((stored.double() / top).float(), seeded(1))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@EVERY
@pytest.mark.parametrize("channels", [1, 3])
def test_images_in_float64_are_augmented_like_the_same_in_float32(name, channels):
    image, policy = noise(4, channels, 32, 32).double(), POLICIES[name](64)
    torch.testing.assert_close(policy(image, seeded(1)).float(), policy(image.float(), seeded(1)), rtol=0, atol=1e-4)


@EVERY
def test_a_seed_fixes_the_views_and_another_changes_every_one_of_them(name):
    image, policy = noise(8, 3, 32, 32), POLICIES[name](32)
    views = [policy(image, seeded(seed)) for seed in (3, 3, 4)]
    assert torch.equal(views[0], views[1])
    assert (views[0] - views[2]).abs().amax((1, 2, 3)).min() > 0.05


@EVERY
def test_every_image_has_its_own_draw(name):
    views = POLICIES[name](32)(noise(1, 3, 32, 32).expand(12, 3, 32, 32), seeded()).flatten(1)
    assert torch.pdist(views).min() > 0.5


@EVERY
def test_autocast_changes_no_view_and_is_still_on_afterwards(name):
    image, policy = noise(4, 3, 32, 32), POLICIES[name](64)
    expected = policy(image, seeded())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = policy(image, seeded())
        assert torch.is_autocast_enabled("cpu")
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    assert torch.equal(found, expected)
    assert not torch.is_autocast_enabled("cpu")


@EVERY
def test_a_policy_learns_nothing_and_has_no_state(name):
    assert list(POLICIES[name](32).state_dict()) == []


@EVERY
def test_gradients_reach_the_image(name):
    image = (0.3 + 0.4 * noise(4, 3, 32, 32)).requires_grad_()
    POLICIES[name](32)(image, seeded()).sum().backward()
    assert image.grad.isfinite().all()
    assert (image.grad.abs().amax((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("name", sorted(NEVER_MIRRORED))
def test_radiographs_slices_and_digits_are_never_mirrored(name):
    policy = NEVER_MIRRORED[name](32)
    # A map that mirrors has a negative determinant, whatever else it does.
    assert (torch.linalg.det(policy.geometry.draw(corner(2000), seeded()).affine[:, :, :2]) > 0).all()
    # And what is seen resembles the image more than its mirror image, wherever the crop shows enough of it.
    image = corner(500)
    whole = policy.geometry.draw(image, seeded()).affine[:, :, :2].det() > 0.85
    views = policy(image, seeded())[whole]
    assert len(views) > 50
    assert (likeness(views, image[whole]) > likeness(views, image[whole].flip(3))).double().mean() > 0.9


def test_half_of_all_photographs_are_mirrored():
    image = corner(2000)
    draws = natural(32).geometry.draw(image, seeded()).affine
    mirrored = torch.linalg.det(draws[:, :, :2]) < 0
    assert stats.binomtest(int(mirrored.sum()), 2000, 0.5).pvalue > 0.01
    views = natural(32)(image, seeded())
    whole = draws[:, :, :2].det().abs() > 0.85
    closer = likeness(views, image) < likeness(views, image.flip(3))
    assert (closer == mirrored)[whole].double().mean() > 0.9


def test_digits_and_slices_may_turn_and_photographs_do_not():
    def turned(policy):
        draws = policy.geometry.draw(torch.zeros(500, 1, 1, 1), seeded()).affine
        return float(torch.rad2deg(torch.atan2(draws[:, 1, 0], draws[:, 0, 0].abs())).abs().max())

    assert turned(natural(32)) < 1e-4
    assert turned(digits(32)) == pytest.approx(15, abs=0.2)
    assert turned(mri(32)) == pytest.approx(15, abs=0.2)
    assert turned(xray(32)) == pytest.approx(10, abs=0.2)


@pytest.mark.parametrize(("policy", "upright"), [(ultrasound, True), (histology, False)])
def test_echoes_keep_their_depth_and_sections_have_no_upright(policy, upright):
    down = policy(32).geometry.draw(torch.zeros(500, 1, 1, 1), seeded()).affine[:, 1, 1] > 0
    assert bool(down.all()) == upright


@EVERY
def test_what_was_drawn_can_be_rendered_again(name):
    image, policy = noise(6, 3, 32, 32), POLICIES[name](32)
    generator = seeded(5)
    warp, tone = policy.draw(image, generator)
    after = generator.get_state()
    expected = policy(image, seeded(5))
    assert torch.equal(policy.render(image, warp, tone, torch.Generator().set_state(after)), expected)


@EVERY
def test_a_mask_goes_where_the_image_goes_also_beyond_the_edge(name):
    """Where the view of a two-level image is nearly one level or the other, the mask is that level."""
    mask = F.interpolate(noise(20, 1, 4, 4).round(), scale_factor=16)[:, 0]
    policy = POLICIES[name](64)
    warp, _ = policy.draw(mask[:, None], seeded(5))
    view, moved = warp.image(mask[:, None])[:, 0], warp.mask(mask)
    clear = (view - 0.5).abs() > 0.499
    assert clear.double().mean() > 0.7
    assert torch.equal(view[clear].round(), moved[clear])


@EVERY
def test_points_and_masks_are_the_same_under_autocast(name):
    mask = torch.arange(40 * 40).view(1, 40, 40)
    warp, _ = POLICIES[name](32).draw(mask[:, None], seeded(5))
    expected = warp.grid(), warp.mask(mask), warp.image(mask[:, None].float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = warp.grid(), warp.mask(mask), warp.image(mask[:, None].float())
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_views_made_in_chunks_are_those_made_at_once(monkeypatch):
    image, policy = noise(7, 3, 32, 32), natural(64)
    at_once = policy(image, seeded())
    monkeypatch.setattr(policies, "CHUNK", 2 * 3 * 64 * 64)
    torch.testing.assert_close(policy(image, seeded()), at_once, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["natural", "xray"])
def test_a_compiled_policy_gives_the_same_views(name):
    image, policy = noise(4, 3, 32, 32), POLICIES[name](64)
    compiled = torch.compile(policy, backend="aot_eager")
    torch.manual_seed(0)
    expected = policy(image)
    torch.manual_seed(0)
    torch.testing.assert_close(compiled(image), expected, rtol=0, atol=1e-5)


@EVERY
def test_images_below_64_pixels_are_not_blurred(name):
    assert POLICIES[name](63).intensity.blur == 0
    assert (POLICIES[name](64).intensity.blur > 0) == (name not in ("captioned", "digits", "randaugment"))


def test_every_policy_is_named_where_one_is_asked_for():
    for options in (EncoderOptions, Preview):
        text = inspect.getsource(options)
        assert all(name in text for name in POLICIES)


NEUTRAL = {"brightness": 1, "contrast": 1, "gamma": 1, "saturation": 1, "noise": 0, "hue": 0}
"""Of each field of a tone the value that changes nothing."""


def strengths_drawn(policy, channels, n=6000):
    """`{operation: (n,)}`: how much of each is done to each view, told from the draw, of a policy without its crop."""
    policy.geometry.area = policy.geometry.aspect = (1.0, 1.0)
    warp, tone = policy.draw(torch.zeros(n, channels, 2, 2), seeded())
    x, y, shift = warp.affine.unbind(2)
    # Turned by b and slanted by a, x is (cos b, sin b), and x * y is tan a.
    turn, slant = torch.atan2(x[:, 1], x[:, 0]).rad2deg(), (x * y).sum(1).atan().rad2deg()
    found = {"rotation": turn, "shear": slant, "translation": shift.abs().amax(1) / 2}
    for name, value in NEUTRAL.items():
        if getattr(tone, name) is not None:
            found[name] = getattr(tone, name) - value
    return found


@pytest.mark.parametrize(("channels", "number"), [(1, 7), (2, 7), (3, 9)])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_randaugment_does_exactly_so_many_things_to_each_view_and_chooses_them_evenly(channels, number, count):
    drawn = strengths_drawn(RandAugment(16, count=count), channels)
    assert set(drawn) == set(RandAugment.STRENGTHS) - (set() if channels == 3 else {"saturation", "hue"})
    done = torch.stack(list(drawn.values()), dim=1) != 0
    assert done.shape == (6000, number)
    assert (done.sum(dim=1) == count).all()
    if count:
        for each in done.sum(dim=0).tolist():
            assert stats.binomtest(each, 6000, count / number).pvalue > 1e-4
    if count > 1:
        together = (done.double().T @ done.double()).triu(1)
        pairs = count * (count - 1) / (number * (number - 1))
        assert all(
            stats.binomtest(int(together[i, j]), 6000, pairs).pvalue > 1e-4
            for i in range(number)
            for j in range(i + 1, number)
        )


@pytest.mark.parametrize("magnitude", [0.2, 0.6, 1.0])
def test_randaugment_draws_each_strength_evenly_up_to_a_common_share_of_its_largest(magnitude):
    for name, values in strengths_drawn(RandAugment(16, count=9, magnitude=magnitude), 3).items():
        most = magnitude * RandAugment.STRENGTHS[name]
        values = {"hue": values / (2 * torch.pi), "gamma": (values + 1).log()}.get(name, values).double() / most
        if name == "translation":  # the larger one of two
            values = values.square()
        one_sided = name in ("noise", "translation")
        expected = stats.uniform(0, 1) if one_sided else stats.uniform(-1, 2)
        assert stats.kstest(values.numpy(), expected.cdf).pvalue > 1e-4, name
        assert 0.99 < values.max() <= 1 + 1e-5


def test_randaugment_always_crops_and_never_mirrors():
    policy = RandAugment(32, count=0)
    affine = policy.draw(torch.zeros(4000, 3, 2, 2), seeded())[0].affine
    assert (affine[:, [0, 1], [1, 0]] == 0).all()
    width, height = affine[:, 0, 0], affine[:, 1, 1]
    assert 0.3 - 1e-3 < (width * height).min() < 0.32
    assert (width / height).min() > 0.74
    assert (width / height).max() < 1.34
    assert width.min() > 0
    assert width.max() <= 1
    assert (affine[:, :, 2].abs() <= 1 - torch.stack([width, height], dim=1) + 1e-6).all()


def test_randaugment_with_nothing_beside_the_crop_leaves_intensities_alone():
    image = noise(8, 3, 32, 32)
    policy = RandAugment(32, count=0)
    expected = policy.geometry(image, seeded(1))
    assert (expected - image).abs().max() > 0.1
    generator = seeded(1)
    warp, tone = policy.draw(image, generator)
    torch.testing.assert_close(policy.render(image, warp, tone, generator), warp.image(image), rtol=0, atol=1e-5)


def test_more_operations_or_a_larger_magnitude_change_a_view_more():
    image = F.interpolate(noise(200, 3, 4, 4), 32, mode="bilinear")

    def change(**how):
        policy = RandAugment(32, **how)
        policy.geometry.area = policy.geometry.aspect = (1.0, 1.0)
        return float((policy(image, seeded()) - image).square().mean())

    assert change(count=1) < change(count=2) < change(count=4)
    assert change(magnitude=0.1) < change(magnitude=0.4) < change(magnitude=1.0)


def test_randaugment_frozen_is_itself_for_it_is_no_list_of_strengths():
    policy = RandAugment(32)
    assert policy.freeze() is policy
