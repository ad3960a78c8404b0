"""A learned policy is its hand-made one at first, differentiable in all strengths, and never leaves their bounds."""

import math

import pytest
import torch
import torch.nn.functional as F

from kontrast import losses
from kontrast.augment import policy_file
from kontrast.augment.geometry import GATE_TEMPERATURE, Geometry, happens
from kontrast.augment.intensity import Intensity
from kontrast.augment.learned import HIGHEST_START, MEMORY, LearnedPolicy
from kontrast.augment.operations import OPERATIONS, constants
from kontrast.augment.policies import POLICIES, Policy, digits, histology, natural, xray
from kontrast.errors import InputError, TrainingStopped

COLOUR = {name for name, operation in OPERATIONS.items() if operation.colour}
CHANCES = {name for name, operation in OPERATIONS.items() if operation.form == "probability"}


def everything(size):
    """A policy in which every operation there is does something."""
    return Policy(
        Geometry(
            size,
            area=(0.5, 0.9),
            aspect=(0.8, 1.25),
            scale=(0.9, 1.2),
            rotation=15,
            shear=10,
            translation=0.1,
            flip=0.4,
            flip_vertical=0.3,
            elastic=0.03,
            padding="border",
        ),
        Intensity(
            probability=0.8,
            stain=0.1,
            gain=0.1,
            brightness=0.2,
            contrast=0.2,
            saturation=0.3,
            hue=0.05,
            grey=0.2,
            inversion=0.3,
            gamma=0.3,
            blur=0.5,
            sigma=(0.3, 1.5),
            noise=0.05,
            cutout=0.5,
            cutout_side=(0.1, 0.4),
        ),
    )


STARTS = {name: make for name, make in POLICIES.items() if name != "randaugment"} | {"everything": everything}
EVERY = pytest.mark.parametrize("name", sorted(STARTS))
CHANNELS = pytest.mark.parametrize("channels", [1, 3])
SIZES = pytest.mark.parametrize("size", [28, 64])
PRODUCERS = pytest.mark.parametrize("producer", ["global", "network"])
ALONE = {
    "area": {"area": (0.5, 1.0)},
    "aspect": {"aspect": (0.7, 1.4)},
    "scale": {"scale": (0.8, 1.25)},
    "rotation": {"rotation": 10.0},
    "shear": {"shear": 10.0},
    "translation": {"translation": 0.1},
    "flip": {"flip": 0.4},
    "flip_vertical": {"flip_vertical": 0.4},
    "elastic": {"elastic": 0.02},
    "probability": {"probability": 0.5, "brightness": 0.3},
    "stain": {"stain": 0.2},
    "gain": {"gain": 0.2},
    "brightness": {"brightness": 0.3},
    "contrast": {"contrast": 0.3},
    "saturation": {"saturation": 0.3},
    "hue": {"hue": 0.05},
    "grey": {"grey": 0.4},
    "inversion": {"inversion": 0.4},
    "gamma": {"gamma": 0.3},
    "blur": {"blur": 0.5, "sigma": (0.5, 1.0)},
    "sigma": {"blur": 1.0, "sigma": (0.5, 2.0)},
    "noise": {"noise": 0.05},
    "cutout": {"cutout": 0.5, "cutout_side": (0.3, 0.3)},
    "cutout_side": {"cutout": 1.0, "cutout_side": (0.1, 0.4)},
}
"""Of each operation a policy that has it, and as little else as there can be."""
EACH = pytest.mark.parametrize("operation", sorted(ALONE))


@pytest.fixture(autouse=True)
def the_same_network_in_every_run():
    torch.manual_seed(0)


def alone(operation, size=32):
    """The policy of one operation alone."""
    parts = {"geometry": {}, "intensity": {}}
    for name, value in ALONE[operation].items():
        parts[OPERATIONS[name].part][name] = value
    return Policy(Geometry(size, **parts["geometry"]), Intensity(**parts["intensity"]))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth(n=16, channels=3, side=32):
    """Soft colours that change over a few pixels, far from black and white; what moves them a little shows a little."""
    small = 0.2 + 0.6 * torch.rand(n, channels, 5, 5, generator=seeded(7))
    return F.interpolate(small, side, mode="bicubic").clamp(0.15, 0.85)


def uneven(n, channels):
    """Images that are no squares."""
    return 0.1 + 0.8 * torch.rand(n, channels, 40, 30, generator=seeded(3))


def learned(name, size=28, channels=3, **how):
    return LearnedPolicy(STARTS[name](size), channels=channels, **how)


def moved(name, size=28, channels=3, **how):
    """One that has learned, whatever it was."""
    policy = learned(name, size, channels, **how)
    with torch.no_grad():
        policy.raw.add_(torch.randn(policy.raw.shape, generator=seeded(5)))
    return policy


def knowing(policy, seed=0):
    """A policy whose network says something of its own for each image."""
    with torch.no_grad():
        weight = policy.network[-1].weight
        weight.copy_(0.3 * torch.randn(weight.shape, generator=seeded(seed)))
    return policy


def test_one_of_the_policies_here_has_every_operation_and_all_of_them_are_learned():
    assert learned("everything").names == tuple(OPERATIONS)
    assert set(ALONE) == set(OPERATIONS)
    for name in ALONE:
        used = LearnedPolicy(alone(name), channels=3).names
        assert name in used
        assert set(used) <= set(ALONE[name])


@EVERY
@SIZES
@CHANNELS
@PRODUCERS
def test_at_the_start_views_are_those_of_the_hand_made_policy(name, size, channels, producer):
    image = uneven(16, channels)
    found = learned(name, size, channels, producer=producer)(image, seeded(1))
    torch.testing.assert_close(found.detach(), STARTS[name](size)(image, seeded(1)), rtol=0, atol=2e-5)


@EVERY
@SIZES
@CHANNELS
def test_every_parameter_has_a_gradient_from_what_a_projection_makes_of_the_views(name, size, channels):
    policy, image = learned(name, size, channels), uneven(24, channels)
    for seed in range(2):
        direction = torch.randn(24, channels, size, size, generator=seeded(seed))
        (policy(image, seeded(seed)) * direction).sum().backward()
    assert policy.raw.grad.isfinite().all()
    silent = [one for one, slope in zip(policy.names, policy.raw.grad.tolist(), strict=True) if slope == 0]
    assert silent == []


@EVERY
@SIZES
@CHANNELS
def test_every_parameter_has_a_gradient_from_making_the_contrast_harder(name, size, channels):
    policy, image = learned(name, size, channels), uneven(16, channels)
    projection = torch.randn(channels * size**2, 32, generator=seeded(2)) / size
    for seed in range(3):
        generator = seeded(seed)
        a, b = (policy(image, generator).flatten(1) @ projection for _ in range(2))
        (-losses.nt_xent(a, b, temperature=0.2)).backward()
    assert policy.raw.grad.isfinite().all()
    assert (policy.raw.grad != 0).all()


@EVERY
def test_every_answer_of_the_network_has_a_gradient(name):
    policy, image = learned(name, producer="network"), uneven(24, 3)
    direction = torch.randn(24, 3, 28, 28, generator=seeded())
    (policy(image, seeded()) * direction).sum().backward()
    slopes = policy.network[-1].weight.grad
    assert slopes.isfinite().all()
    assert (slopes.abs().amax(dim=1) > 0).all()


@EACH
@pytest.mark.parametrize("wanted", ["larger", "smaller"])
def test_a_step_towards_views_unlike_or_like_their_images_moves_a_strength_up_or_down(operation, wanted):
    policy, image = LearnedPolicy(alone(operation), channels=3), smooth()
    number = policy.names.index(operation)
    before = policy.mean_widths().detach()[number]
    optimiser = torch.optim.SGD(policy.parameters(), lr=1.0)
    away = (policy(image.repeat(8, 1, 1, 1), seeded()) - image.repeat(8, 1, 1, 1)).square().mean()
    (-away if wanted == "larger" else away).backward()
    optimiser.step()
    after = policy.mean_widths().detach()[number]
    assert bool(after > before) == (wanted == "larger")
    assert after != before


@EVERY
@SIZES
@CHANNELS
@pytest.mark.parametrize("far", [-100.0, 100.0])
def test_parameters_far_out_leave_no_bound_and_views_and_gradients_stay_finite(name, size, channels, far):
    policy = learned(name, size, channels)
    with torch.no_grad():
        policy.raw.fill_(far)
    image = uneven(8, channels).requires_grad_()
    views = policy(image, seeded())
    assert views.isfinite().all()
    assert views.min() >= -1e-6
    assert views.max() <= 1 + 1e-6
    views.square().sum().backward()
    assert policy.raw.grad.isfinite().all()
    assert image.grad.isfinite().all()
    for one, constant in constants(policy.freeze()).items():
        operation = OPERATIONS[one]
        if one in policy.names:
            assert -1e-6 <= operation.width(constant) <= operation.limit * (1 + 1e-6), one


@pytest.mark.parametrize(
    ("operation", "measure"),
    [
        ("rotation", lambda warp, _: torch.atan2(warp.affine[:, 1, 0], warp.affine[:, 0, 0]).rad2deg().abs()),
        ("translation", lambda warp, _: (warp.affine[:, :, 2] / 2).abs()),
        ("area", lambda warp, _: -torch.linalg.det(warp.affine[:, :, :2]).log()),
        ("scale", lambda warp, _: warp.affine[:, 0, 0].log().abs()),
        ("flip", lambda warp, _: (warp.affine[:, 0, 0] < 0).float().mean()),
        ("brightness", lambda _, tone: (tone.brightness - 1).abs()),
        ("gamma", lambda _, tone: tone.gamma.log().abs()),
        ("hue", lambda _, tone: tone.hue.abs() / (2 * math.pi)),
        ("noise", lambda _, tone: tone.noise),
        ("sigma", lambda _, tone: tone.sigma),
        ("cutout_side", lambda _, tone: tone.cutout[:, 1::2]),
        ("inversion", lambda _, tone: tone.inversion.mean()),
    ],
)
def test_what_is_drawn_reaches_the_bound_of_its_operation_and_does_not_pass_it(operation, measure):
    policy = LearnedPolicy(alone(operation, size=224), channels=3)
    with torch.no_grad():
        policy.raw.fill_(100)
        drawn = measure(*policy.draw(torch.zeros(4000, 3, 1, 1), seeded())).max()
    reach = OPERATIONS[operation].reach
    slack = 4 * math.sqrt(reach * (1 - reach) / 4000) if operation in CHANCES else 1e-5
    assert 0.97 * reach - slack < drawn <= reach * (1 + 1e-5) + slack


@EVERY
@CHANNELS
def test_without_strengths_and_chances_every_view_is_its_image(name, channels):
    policy, image = learned(name, 32, channels), smooth(8, channels)
    with torch.no_grad():
        policy.raw.fill_(-100)
        torch.testing.assert_close(policy(image, seeded()), image, rtol=0, atol=5e-6)


@EACH
def test_at_width_zero_an_operation_does_nothing(operation):
    policy, image = LearnedPolicy(alone(operation), channels=3), smooth(8)
    plain = alone(operation)
    assert (plain(image, seeded()) - image).abs().max() > 0.01
    with torch.no_grad():
        policy.raw[policy.names.index(operation)] = -100
        view = policy(image, seeded())
    torch.testing.assert_close(view, image, rtol=0, atol=5e-6)


@EVERY
@PRODUCERS
def test_a_seed_fixes_the_views_and_every_image_has_its_own_draw(name, producer):
    policy = learned(name, producer=producer)
    if producer == "network":
        knowing(policy)
    same = uneven(1, 3).expand(12, 3, 40, 30)
    with torch.no_grad():
        first, again, other = (policy(same, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert (first - other).abs().amax((1, 2, 3)).min() > 0.05
    assert torch.pdist(first.flatten(1)).min() > 0.5


@EVERY
@SIZES
@CHANNELS
def test_frozen_it_is_a_plain_policy_of_the_same_views(name, size, channels):
    policy, image = moved(name, size, channels), uneven(16, channels)
    frozen = policy.freeze()
    assert type(frozen) is Policy
    assert list(frozen.parameters()) == []
    assert list(frozen.state_dict()) == []
    if channels == 1:  # frozen, it draws no colour any more, so it is compared with one that never had any
        start = STARTS[name](size)
        for colour in COLOUR:
            setattr(start.intensity, colour, 0.0)
        grey = LearnedPolicy(start, channels=1)
        assert grey.names == policy.names
        grey.raw = policy.raw
        policy = grey
    with torch.no_grad():
        found, expected = frozen(image, seeded(1)), policy(image, seeded(1))
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-5)
        assert (expected - learned(name, size, channels)(image, seeded(1))).abs().max() > 0.05
        policy.raw.fill_(-100)
        assert torch.equal(frozen(image, seeded(1)), found)


def test_a_plain_policy_frozen_is_itself():
    policy = natural(32)
    assert policy.freeze() is policy


@EVERY
@CHANNELS
def test_written_and_read_again_a_frozen_policy_gives_the_same_views_bit_for_bit(name, channels, tmp_path):
    frozen, image = moved(name, 64, channels).freeze(), uneven(16, channels)
    policy_file.write(frozen, tmp_path / "policy.yaml")
    read = policy_file.read(tmp_path / "policy.yaml", size=64, channels=channels)
    assert torch.equal(read(image, seeded(1)), frozen(image, seeded(1)))


@EVERY
def test_read_for_another_size_only_what_is_in_pixels_is_scaled(name, tmp_path):
    frozen, image = moved(name, 64).freeze(), uneven(8, 3)
    policy_file.write(frozen, tmp_path / "policy.yaml")
    read = policy_file.read(tmp_path / "policy.yaml", size=128, channels=3)
    frozen.geometry.size = 128
    frozen.intensity.sigma = tuple(2 * end for end in frozen.intensity.sigma)
    assert read.size == 128
    assert torch.equal(read(image, seeded(1)), frozen(image, seeded(1)))


@EVERY
@CHANNELS
def test_what_was_learned_to_the_bound_can_be_written_and_read(name, channels, tmp_path):
    policy, image = learned(name, 64, channels), uneven(8, channels)
    with torch.no_grad():
        policy.raw.fill_(100)
    frozen = policy.freeze()
    policy_file.write(frozen, tmp_path / "policy.yaml")
    read = policy_file.read(tmp_path / "policy.yaml", size=64, channels=channels)
    assert torch.equal(read(image, seeded(1)), frozen(image, seeded(1)))


@EVERY
@SIZES
def test_every_parameter_starts_within_its_bound_where_the_sigmoid_still_slopes(name, size):
    policy = learned(name, size)
    for one, width, place in zip(policy.names, policy.mean_widths().tolist(), policy.position().tolist(), strict=True):
        is_near_its_limit = width > HIGHEST_START * OPERATIONS[one].limit
        assert 0.01 < place < (0.995 if is_near_its_limit else HIGHEST_START + 1e-3), one


@pytest.mark.parametrize(
    ("operation", "value"),
    [
        ("rotation", 100.0),
        ("rotation", 180.0),
        ("brightness", 0.9),
        ("brightness", 0.97),
        ("noise", 0.5),
        ("flip", 0.9),
    ],
)
def test_a_bound_that_the_start_exceeds_is_widened_to_hold_it(operation, value):
    assert value > OPERATIONS[operation].reach
    start = alone(operation)
    setattr(getattr(start, OPERATIONS[operation].part), operation, value)
    policy = LearnedPolicy(start, channels=3)
    assert policy.mean_widths().item() == pytest.approx(value, rel=1e-5)
    assert policy.raw.item() < math.log(0.995 / 0.005)
    policy.raw.data.fill_(100)
    assert value <= policy.mean_widths().item() <= 1.25 * value * (1 + 1e-6)


def test_a_blur_of_one_standard_deviation_keeps_it_and_learns_on():
    """A range whose ends are the same may still become a wider one."""
    start = Policy(Geometry(32), Intensity(blur=0.5, sigma=(1.0, 1.0)))
    policy, image = LearnedPolicy(start, channels=3), smooth()
    torch.testing.assert_close(policy(image, seeded()).detach(), start(image, seeded()), rtol=0, atol=2e-5)
    assert policy.raw.isfinite().all()
    policy(image, seeded()).square().sum().backward()
    assert policy.raw.grad.isfinite().all()


@pytest.mark.parametrize("far", [-30.0, -60.0, -100.0, -200.0])
def test_a_blur_that_may_be_none_at_all_is_finite_as_it_fades(far):
    """Kernels of no width divide by nothing."""
    policy, image = LearnedPolicy(Policy(Geometry(32), Intensity(blur=1.0, sigma=(0.0, 2.0))), channels=3), smooth()
    with torch.no_grad():
        policy.raw.fill_(far)
    view = policy(image.requires_grad_(), seeded())
    torch.testing.assert_close(view.detach(), image.detach(), rtol=0, atol=5e-6)
    view.square().sum().backward()
    assert image.grad.isfinite().all()
    assert policy.raw.grad is None or policy.raw.grad.isfinite().all()


@pytest.mark.parametrize("chance", sorted(CHANCES))
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_chance_of_0_or_1_is_not_learned(chance, value):
    start = everything(28)
    setattr(getattr(start, OPERATIONS[chance].part), chance, value)
    policy = LearnedPolicy(start, channels=3)
    assert chance not in policy.names
    gone = {name for name, operation in OPERATIONS.items() if operation.depends_on == chance} if value == 0 else set()
    assert set(policy.names) == set(OPERATIONS) - {chance} - gone
    policy.raw.data.fill_(1.0)
    assert constants(policy.freeze())[chance] == value


@EVERY
@CHANNELS
def test_what_the_hand_made_policy_leaves_out_stays_out(name, channels):
    start = STARTS[name](64)
    policy = LearnedPolicy(start, channels=channels)
    policy.raw.data.fill_(2.0)
    begun, ended = constants(start), constants(policy.freeze())
    for one, operation in OPERATIONS.items():
        if operation.width(begun[one]) == 0:
            assert ended[one] == begun[one]
            assert one not in policy.names


@EVERY
def test_colour_is_learned_on_three_channels_and_on_no_others(name):
    coloured = {one for one in COLOUR if OPERATIONS[one].width(constants(STARTS[name](28))[one])}
    assert set(learned(name, channels=3).names) & COLOUR == coloured
    for channels in (1, 2, 4):
        assert not set(learned(name, channels=channels).names) & COLOUR
    frozen = constants(learned(name, channels=1).freeze())
    assert all(frozen[one] == 0 for one in COLOUR)


@pytest.mark.parametrize(
    ("start", "channels"),
    [
        (Policy(Geometry(28), Intensity()), 3),
        (Policy(Geometry(28, flip=1.0), Intensity()), 3),
        (Policy(Geometry(28), Intensity(probability=0.5)), 3),
        (Policy(Geometry(28), Intensity(probability=0.0, brightness=0.4)), 3),
        (Policy(Geometry(28), Intensity(saturation=0.4, grey=0.2)), 1),
    ],
    ids=["nothing", "always", "nothing by chance", "never", "colour in grey"],
)
def test_a_policy_without_anything_to_learn_is_refused(start, channels):
    with pytest.raises(InputError, match="has none at all"):
        LearnedPolicy(start, channels=channels)


@EVERY
def test_what_is_shown_are_the_ends_that_the_hand_made_policy_has(name):
    policy, given = learned(name, 64), constants(STARTS[name](64))
    shown = policy.shown()
    assert list(shown) == list(policy.names)
    for one, value in shown.items():
        expected = given[one]
        if isinstance(expected, tuple):
            expected = expected[0] if one == "area" else max(expected[1], 1 / expected[0] if one != "sigma" else 0)
        if one == "cutout_side":
            expected = given[one][1]
        assert float(value) == pytest.approx(expected, rel=1e-4)
        assert not value.requires_grad


def test_a_range_moves_as_a_whole():
    """Both ends of a ratio or share keep their proportion on the logarithm; those of a blur as they are."""
    start = Policy(
        Geometry(64, area=(0.25, 0.5), aspect=(0.5, 1.5), scale=(0.9, 1.2)), Intensity(blur=0.5, sigma=(0.3, 1.0))
    )
    policy = LearnedPolicy(start, channels=3)
    policy.raw.data -= 1.0
    begun, ended = constants(start), constants(policy.freeze())
    for name in ("area", "aspect", "scale"):
        low, high = (math.log(now) / math.log(then) for now, then in zip(ended[name], begun[name], strict=True))
        assert low == pytest.approx(high, rel=1e-5)
        assert 0.1 < low < 0.9
    assert ended["sigma"][0] / ended["sigma"][1] == pytest.approx(0.3)
    assert 0.3 < ended["sigma"][1] < 0.9


@EVERY
@PRODUCERS
def test_state_restores_the_views(name, producer):
    first, second = (learned(name, producer=producer) for _ in range(2))
    image = uneven(8, 3)
    with torch.no_grad():
        for value in first.state_dict().values():
            value.add_(torch.randn(value.shape, generator=seeded(4)))
        expected = first(image, seeded())
        frozen = constants(first.freeze())
        second.load_state_dict(first.state_dict(), strict=True)
        second.eval()
        assert torch.equal(second(image, seeded()), expected)
        if producer == "global":
            assert constants(second.freeze()) == frozen
        assert not torch.allclose(learned(name)(image, seeded()), expected, atol=0.01)


def test_the_network_gives_each_image_its_own_strengths_and_the_same_ones_to_the_same_image():
    policy = learned("digits", producer="network")
    image = torch.cat([smooth(3), smooth(3)[:1]])
    begin = policy.widths(image)
    assert torch.equal(begin, policy.mean_widths().expand_as(begin))
    widths = knowing(policy).widths(image)
    assert widths.shape == (4, len(policy.names))
    assert torch.pdist(widths[:3]).min() > 1e-3
    torch.testing.assert_close(widths[0], widths[3])
    bound = learned("digits").widths(image)
    assert bound.shape == (1, len(policy.names))


def test_what_the_network_says_of_an_image_shows_in_the_view_of_that_image_alone():
    """Two images, of which the network turns one far and the other hardly."""
    start = Policy(Geometry(32, rotation=10), Intensity())
    policy = knowing(LearnedPolicy(start, channels=3, producer="network"))
    image = smooth(64)
    widths = policy.widths(image)[:, 0]
    with torch.no_grad():
        affine = policy.draw(image, seeded())[0].affine
    plain = start.draw(image, seeded())[0].affine
    turned, base = (torch.atan2(a[:, 1, 0], a[:, 0, 0]).rad2deg() for a in (affine, plain))
    torch.testing.assert_close(turned, base * widths / 10, rtol=1e-3, atol=1e-3)
    assert widths.std() > 0.1


@EVERY
def test_with_a_network_every_operation_renders_and_learns(name):
    policy = knowing(learned(name, 64, producer="network"))
    image = uneven(8, 3)
    views = policy(image, seeded())
    assert views.shape == (8, 3, 64, 64)
    views.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in policy.parameters())


@pytest.mark.parametrize("operation", sorted(set(ALONE) - CHANCES))
def test_a_view_with_strengths_of_each_image_is_the_view_with_those_of_that_image(operation):
    """Drawn alike, an image among others is as it is where all have its strengths."""
    if operation in ("noise", "elastic"):
        pytest.skip("drawn pixel by pixel, for all images in one stream")
    policy = knowing(LearnedPolicy(alone(operation), channels=3, producer="network"), seed=1)
    image = smooth(4)
    with torch.no_grad():
        widths = policy.widths(image)
        views = policy(image, seeded(2))
        for i in range(4):
            single = LearnedPolicy(alone(operation), channels=3)
            single.raw.copy_(torch.logit(widths[i] / single.bound))
            # A blur's kernel ends at 2.5 of the largest deviation, beyond which 1.2 % of a narrower one would lie.
            tolerance = 5e-3 if operation == "sigma" else 1e-4
            torch.testing.assert_close(single(image, seeded(2))[i], views[i], rtol=0, atol=tolerance)


def test_an_image_that_is_shrunk_by_its_own_strengths_is_averaged_first():
    """Of a fine chequerboard seen from afar nothing but grey is left, whatever the others of its batch show."""
    policy = LearnedPolicy(Policy(Geometry(32, scale=(0.5, 1.0)), Intensity()), channels=1, producer="network")
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2
    image = torch.stack([board.float()[None], torch.full((1, 32, 32), 0.5)])
    policy.widths = lambda _: torch.tensor([[math.log(4)], [0.0]])
    with torch.no_grad():
        warp, _ = policy.draw(image, seeded(1))
    assert warp.affine[0, 0, 0] > 1.5
    assert warp.antialias


def test_a_frozen_network_has_the_mean_of_what_it_said_of_recent_images():
    policy = knowing(learned("digits", producer="network"))
    batches = [smooth(8, side=32) + 0.05 * i for i in range(3)]
    said = torch.zeros(len(policy.names))
    with torch.no_grad():
        for i in range(60):
            image = batches[i % 3].roll(i, dims=3)
            policy.eval()
            widths = policy.widths(image)
            policy.train()
            policy(image, seeded(i))
            answers = torch.logit(widths / policy.bound) - policy.raw
            said = MEMORY * said + (1 - MEMORY) * answers.mean(dim=0)
    assert said.abs().min() > 1e-3
    expected = policy.bound * torch.sigmoid(policy.raw.detach() + said)
    torch.testing.assert_close(policy.mean_widths().detach(), expected, rtol=1e-3, atol=1e-4)
    frozen = constants(policy.freeze())
    assert frozen["rotation"] == pytest.approx(expected[policy.names.index("rotation")].item(), rel=1e-3)
    assert frozen["rotation"] != pytest.approx(15, rel=1e-3)


def test_in_evaluation_the_network_remembers_nothing():
    policy = knowing(learned("digits", producer="network")).eval()
    policy(smooth(), seeded())
    assert not policy.answered.any()
    policy.train()(smooth(), seeded())
    assert policy.answered.all()


@pytest.mark.parametrize("axis", [0, 1])
def test_the_gradient_of_a_flip_is_the_difference_between_mirrored_and_not(axis):
    """Of a linear loss, image by image, in a view that is also cropped and turned; the other flip stays as drawn."""
    start = Policy(Geometry(28, area=(0.3, 0.8), rotation=20, flip=0.4, flip_vertical=0.4), Intensity())
    policy, image = LearnedPolicy(start, channels=3), smooth(24)
    direction = torch.randn(24, 3, 28, 28, generator=seeded(2))
    warp, _ = policy.draw(image, seeded(1))
    (slope,) = torch.autograd.grad((warp.image(image) * direction).sum(), warp.mirrored)
    mirrored = warp.mirrored.detach()
    assert 0 < mirrored[:, axis].sum() < 24
    view = warp.image(image).detach()
    other = view.flip(3 - axis)
    is_mirrored = mirrored[:, axis].bool()[:, None, None, None]
    difference = torch.where(is_mirrored, view, other) - torch.where(is_mirrored, other, view)
    torch.testing.assert_close(slope[:, axis], (difference * direction).sum((1, 2, 3)), rtol=1e-4, atol=1e-3)


def test_a_flip_that_learns_mirrors_as_a_constant_one_does():
    start = Policy(Geometry(28, flip=0.5, flip_vertical=0.3), Intensity())
    image = smooth(64)
    expected = start(image, seeded(3))
    torch.testing.assert_close(LearnedPolicy(start, channels=3)(image, seeded(3)).detach(), expected, rtol=0, atol=1e-5)
    assert 0.2 < (start.draw(image, seeded(3))[0].affine[:, 0, 0] < 0).float().mean() < 0.8


@pytest.mark.parametrize("value", [0.05, 0.5, 0.9])
def test_a_chance_that_learns_draws_as_a_constant_one_with_the_slope_of_its_relaxation(value):
    image = torch.zeros(1)
    p = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    found = happens(500, p, image, seeded(2))
    drawn = torch.rand(500, generator=seeded(2)).double()
    assert torch.equal(found.detach().float(), happens(500, value, image, seeded(2)))
    assert torch.equal(found.detach().bool(), drawn < value)
    for i in (0, 1, 2, 3, 4):
        (slope,) = torch.autograd.grad(found[i], p, retain_graph=True)
        at = (math.log(value / (1 - value)) - math.log(drawn[i] / (1 - drawn[i]))) / GATE_TEMPERATURE
        soft = 1 / (1 + math.exp(-at))
        assert slope.item() == pytest.approx(soft * (1 - soft) / GATE_TEMPERATURE / (value * (1 - value)), rel=1e-4)


@EVERY
@PRODUCERS
def test_autocast_changes_neither_views_nor_gradients(name, producer):
    image, direction = uneven(8, 3), torch.randn(8, 3, 28, 28, generator=seeded())
    views, slopes = [], []
    for lower in (False, True):
        policy = learned(name, producer=producer)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=lower):
            view = policy(image, seeded(1))
        assert view.dtype == torch.float32
        (view * direction).sum().backward()
        views.append(view.detach())
        slopes.append(policy.raw.grad)
    assert torch.equal(*views)
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-5)


@EVERY
@PRODUCERS
def test_images_in_float64_are_augmented_like_the_same_in_float32(name, producer):
    image, policy = uneven(4, 3).double(), moved(name, producer=producer)
    found, expected = policy(image, seeded(1)), policy(image.float(), seeded(1))
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=1e-4)
    found.sum().backward()
    assert policy.raw.grad.isfinite().all()


@PRODUCERS
def test_a_policy_in_float64_learns_like_one_in_float32(producer):
    slopes = []
    for dtype in (torch.float32, torch.float64):
        policy = learned("digits", producer=producer).to(dtype)
        policy(uneven(8, 3).to(dtype), seeded()).square().sum().backward()
        assert policy.raw.grad.dtype == dtype
        slopes.append(policy.raw.grad.float())
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-3)


@EVERY
@PRODUCERS
@pytest.mark.parametrize(("dtype", "top"), [(torch.uint8, 255), (torch.uint16, 65535)])
def test_integers_and_floats_of_the_same_image_give_the_same_views(name, producer, dtype, top):
    stored = torch.randint(0, top + 1, (4, 3, 40, 30), generator=seeded()).to(dtype)
    policy = learned(name, producer=producer)
    with torch.no_grad():
        found, expected = policy(stored, seeded(1)), policy((stored.double() / top).float(), seeded(1))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_permuting_images_and_draws_together_permutes_the_views():
    policy, image = learned("xray", 64), smooth(6)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    with torch.no_grad():
        warp, tone = policy.draw(image, seeded(1))
        tone = tone.__class__(**{**vars(tone), "noise": None})
        views = policy.render(image, warp, tone)
        for i in order.tolist():
            one = slice(i, i + 1)
            torch.testing.assert_close(
                policy.render(image[one], warp.take(one), tone.take(one)), views[one], rtol=0, atol=1e-6
            )


def test_only_the_operations_of_the_hand_made_policy_are_learned():
    assert learned("digits", 28).names == (
        "area",
        "aspect",
        "rotation",
        "shear",
        "probability",
        "brightness",
        "contrast",
    )
    assert LearnedPolicy(digits(64), channels=1).names == learned("digits", 28).names
    assert "flip" not in LearnedPolicy(xray(64), channels=1).names
    assert {"stain", "flip", "flip_vertical"} < set(LearnedPolicy(histology(64), channels=3).names)


@PRODUCERS
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_parameters_that_are_no_numbers_stop_the_training_before_a_grid_is_made_of_them(producer, value):
    policy = learned("natural", producer=producer)
    with torch.no_grad():
        policy.raw[0] = value
    with pytest.raises(TrainingStopped, match="lower --policy-lr"):
        policy(uneven(4, 3), seeded())
