import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage, stats

from kontrast.augment.geometry import Geometry, Warp, affine_map, resize, uniform

EVERYTHING = {"area": (0.3, 1), "aspect": (0.75, 4 / 3), "rotation": 20, "shear": 10, "flip": 0.5, "flip_vertical": 0.5}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=seeded(seed), dtype=dtype)


def maps(count=4000, seed=0, **strengths):
    """Draws of many images: `(count, 2, 3)`."""
    return Geometry(8, **strengths).draw(torch.zeros(count, 1, 1, 1), seeded(seed)).affine.double()


def matrix(*rows):
    return torch.tensor(rows, dtype=torch.float32)[None]


def warp(image, affine, *, size, padding="zeros"):
    return Warp(affine=affine, size=size, padding=padding, antialias=False).image(image)


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_without_strengths_the_image_stays_as_it_is(size, padding):
    image = noise(3, 2, size, size)
    torch.testing.assert_close(Geometry(size, padding=padding)(image), image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(("angle", "turns"), [(90, -1), (-90, 1), (180, 2)])
def test_a_right_angle_equals_torch_rot90(size, angle, turns):
    image = noise(1, 3, size, size)
    cos, sin = round(math.cos(math.radians(angle))), round(math.sin(math.radians(angle)))
    turned = warp(image, matrix([cos, sin, 0], [-sin, cos, 0]), size=size)
    torch.testing.assert_close(turned, torch.rot90(image, turns, dims=(2, 3)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("which", "dim"), [("flip", 3), ("flip_vertical", 2)])
def test_a_certain_flip_equals_torch_flip(which, dim):
    image = noise(4, 1, 9, 9)
    torch.testing.assert_close(Geometry(9, **{which: 1.0})(image), image.flip(dim), rtol=0, atol=1e-5)


def test_the_top_left_quarter_at_half_the_size_is_the_top_left_pixels():
    image = noise(2, 1, 8, 8)
    quarter = warp(image, matrix([0.5, 0, -0.5], [0, 0.5, -0.5]).expand(2, 2, 3), size=4)
    torch.testing.assert_close(quarter, image[:, :, :4, :4], rtol=0, atol=1e-6)


def test_a_crop_of_half_the_area_takes_the_pixels_between_its_corners():
    """Of an image that holds its own coordinates, each output pixel reads where it was taken from."""
    side = 41
    at = (torch.arange(side) + 0.5) / side * 2 - 1
    ramp = torch.stack(torch.meshgrid(at, at, indexing="xy"))[None].repeat(50, 1, 1, 1)
    crop = Geometry(21, area=(0.5, 0.5))(ramp, seeded())
    extent = crop[:, 0, 0, -1] - crop[:, 0, 0, 0]
    # First and last pixel centres lie 20/21 of the crop's width apart; the image is 2 wide.
    torch.testing.assert_close(extent, torch.full((50,), 2 * math.sqrt(0.5) * 20 / 21), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(crop[:, 1, -1, 0] - crop[:, 1, 0, 0], extent, rtol=1e-4, atol=1e-4)
    # Cropping neither turns nor leaves the image.
    assert (crop[:, 0].std(dim=1) < 1e-5).all()
    assert crop.abs().max() < 1
    # Each lies elsewhere: as far to the side as what is left allows.
    assert crop[:, 0, 10, 10].abs().max() == pytest.approx(1 - math.sqrt(0.5), abs=0.03)


@pytest.mark.parametrize("angle", [30, -75])
def test_a_rotation_equals_scipy_within_the_disc_that_stays_inside(angle):
    side = 33
    image = F.avg_pool2d(noise(1, 1, side + 8, side + 8), 9, stride=1)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    found = warp(image, matrix([cos, -sin, 0], [sin, cos, 0]), size=side)[0, 0]
    expected = ndimage.rotate(image[0, 0].double().numpy(), angle, reshape=False, order=1)
    rows, columns = np.indices((side, side)) - side // 2
    inside = np.hypot(rows, columns) < side // 2 - 1
    np.testing.assert_allclose(found.numpy()[inside], expected[inside], atol=1e-4)


def test_a_drawn_map_is_a_turn_of_a_slant_of_a_stretch_with_its_flips():
    """The polar parts of every draw lie within what was asked for, and all its extremes are nearly reached."""
    affine = maps(rotation=20, shear=10, area=(0.3, 1), flip=0.5, flip_vertical=0.5)
    columns = affine[:, :, :2]
    mirror = torch.where(columns[:, 0, 0] < 0, -1.0, 1.0)
    first = columns[:, :, 0] * mirror[:, None]
    angle = torch.atan2(first[:, 1], first[:, 0])
    assert math.degrees(angle.abs().max()) == pytest.approx(20, abs=0.1)
    cos, sin = angle.cos(), angle.sin()
    unturned = torch.stack(
        [cos * columns[:, 0, 1] + sin * columns[:, 1, 1], -sin * columns[:, 0, 1] + cos * columns[:, 1, 1]], dim=1
    )
    slant = torch.atan(unturned[:, 0] / unturned[:, 1])
    assert math.degrees(slant.abs().max()) == pytest.approx(10, abs=0.1)
    torch.testing.assert_close(first.norm(dim=1), unturned[:, 1].abs(), rtol=1e-4, atol=1e-4)


def test_areas_are_even_over_their_range():
    area = torch.linalg.det(maps(area=(0.2, 1))[:, :, :2])
    assert stats.kstest(area.numpy(), stats.uniform(0.2, 0.8).cdf).pvalue > 0.01


def test_aspects_are_even_on_the_logarithm():
    affine = maps(area=(0.3, 0.3), aspect=(0.5, 2))
    aspect = (affine[:, 0, 0] / affine[:, 1, 1]).log()
    assert stats.kstest(aspect.numpy(), stats.uniform(-math.log(2), 2 * math.log(2)).cdf).pvalue > 0.01


def test_angles_are_even_to_either_side():
    affine = maps(rotation=30)
    angle = torch.rad2deg(torch.atan2(affine[:, 1, 0], affine[:, 0, 0]))
    assert stats.kstest(angle.numpy(), stats.uniform(-30, 60).cdf).pvalue > 0.01


def test_crops_lie_evenly_over_the_image():
    centre = maps(area=(0.25, 0.25))[:, :, 2]
    for axis in (0, 1):
        assert stats.kstest(centre[:, axis].numpy(), stats.uniform(-0.5, 1).cdf).pvalue > 0.01
    assert abs(np.corrcoef(centre.T.numpy())[0, 1]) < 0.05


@pytest.mark.parametrize(("which", "entry"), [("flip", (0, 0)), ("flip_vertical", (1, 1))])
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_flips_come_as_often_as_asked_and_to_their_own_axis_alone(which, entry, probability):
    affine = maps(**{which: probability})
    flipped = int((affine[:, entry[0], entry[1]] < 0).sum())
    assert stats.binomtest(flipped, 4000, probability).pvalue > 0.01
    other = 1 - entry[0]
    assert (affine[:, other, other] > 0).all()


def test_a_wide_crop_is_cut_at_the_image():
    affine = maps(area=(0.9, 1), aspect=(0.25, 4))
    assert affine[:, 0, 0].max() == 1
    assert affine[:, 1, 1].max() == 1
    assert (affine[:, :, 2].abs() + affine[:, [0, 1], [0, 1]] <= 1 + 1e-6).all()


def test_every_image_has_its_own_draw():
    image = noise(1, 1, 12, 12).expand(16, 1, 12, 12)
    views = Geometry(12, **EVERYTHING)(image, seeded()).flatten(1)
    assert torch.pdist(views).min() > 0.1


def test_a_seed_fixes_the_views_and_another_changes_them():
    image, geometry = noise(4, 1, 12, 12), Geometry(12, **EVERYTHING)
    views = [geometry(image, seeded(seed)) for seed in (3, 3, 4)]
    assert torch.equal(views[0], views[1])
    assert (views[0] - views[2]).abs().amax(dim=(1, 2, 3)).min() > 0.1


def test_without_a_generator_the_draws_are_torchs_own():
    image, geometry = noise(4, 1, 12, 12), Geometry(12, **EVERYTHING)
    torch.manual_seed(5)
    first, second = geometry(image), geometry(image)
    torch.manual_seed(5)
    assert torch.equal(geometry(image), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("padding", "outside"), [("zeros", 0.0), ("border", 1.0), ("reflection", 1.0)])
def test_padding_says_what_lies_outside(padding, outside):
    away = warp(torch.ones(1, 1, 5, 5), matrix([1, 0, 2.5], [0, 1, 0]), size=5, padding=padding)
    torch.testing.assert_close(away, torch.full((1, 1, 5, 5), outside))


def test_a_warp_is_differentiable_in_image_map_and_bend():
    image = noise(2, 1, 5, 5, dtype=torch.float64).requires_grad_()
    # Away from pixel centres, where bilinear sampling has a kink.
    affine = torch.tensor([[[0.71, 0.13, 0.037], [-0.11, 0.83, -0.051]]] * 2, dtype=torch.float64).requires_grad_()
    bend = (0.02 * noise(2, 2, 3, 3, dtype=torch.float64)).requires_grad_()
    view = lambda *parts: Warp(affine=parts[1], bend=parts[2], size=4, antialias=False).image(parts[0])  # noqa: E731
    assert torch.autograd.gradcheck(view, (image, affine, bend))


def test_the_map_is_differentiable_in_every_part_of_it():
    parts = ("x", "y", "width", "height", "angle", "slant")
    values = [torch.tensor([v, v / 2], dtype=torch.float64, requires_grad=True) for v in (0.1, 0.2, 0.7, 0.6, 0.3, 0.2)]
    call = lambda *values: affine_map(**dict(zip(parts, values, strict=True)))  # noqa: E731
    assert torch.autograd.gradcheck(call, values)


def test_magnifications_are_even_on_the_logarithm():
    affine = maps(scale=(0.5, 2))
    zoom = -affine[:, 0, 0].log()
    assert stats.kstest(zoom.numpy(), stats.uniform(-math.log(2), 2 * math.log(2)).cdf).pvalue > 0.01
    torch.testing.assert_close(affine[:, 0, 0], affine[:, 1, 1])


def test_shifts_are_even_to_either_side_and_apart():
    shift = maps(translation=0.25)[:, :, 2]
    for axis in (0, 1):
        assert stats.kstest(shift[:, axis].numpy(), stats.uniform(-0.5, 1).cdf).pvalue > 0.01
    assert abs(np.corrcoef(shift.T.numpy())[0, 1]) < 0.05


def test_elastic_displacement_is_normal_at_its_control_points_and_smooth_between():
    geometry = Geometry(41, elastic=0.05)
    image = torch.zeros(300, 1, 41, 41)
    warp = geometry.draw(image, seeded())
    displacement = warp.grid() - Warp(affine=warp.affine, size=41).grid()
    at_points = displacement[:, ::10, ::10].double() / 2
    assert stats.kstest(at_points.flatten().numpy(), stats.norm(0, 0.05).cdf).pvalue > 0.01
    assert displacement.diff(dim=1).abs().max() < 0.2 * displacement.abs().max()


def test_of_an_image_of_its_own_coordinates_the_view_is_the_grid():
    """Which pixel went where, as dense methods read it."""
    side = 64
    at = (torch.arange(side) + 0.5) / side * 2 - 1
    ramp = torch.stack(torch.meshgrid(at, at, indexing="xy"))[None].repeat(20, 1, 1, 1)
    warp = Geometry(24, **EVERYTHING, elastic=0.01, padding="border").draw(ramp, seeded())
    grid = warp.grid()
    inside = (grid.abs() < 1 - 2 / side).all(-1)  # one pixel in, after averaging two by two
    assert 0.5 < inside.double().mean() < 1
    torch.testing.assert_close(warp.image(ramp).permute(0, 2, 3, 1)[inside], grid[inside], rtol=0, atol=1e-3)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int64, torch.bool])
def test_a_mask_is_moved_like_its_image_to_the_nearest_pixel(dtype, padding):
    mask = (noise(8, 17, 17) > 0.5).to(dtype)
    warp = Geometry(13, **EVERYTHING, elastic=0.02, translation=0.7, padding=padding).draw(mask[:, None], seeded())
    how = {"mode": "nearest", "padding_mode": padding, "align_corners": False}
    expected = F.grid_sample(mask[:, None].float(), warp.grid(), **how)[:, 0]
    found = warp.mask(mask)
    assert found.dtype == dtype
    assert torch.equal(found.float(), expected)


def test_a_mask_keeps_large_numbers_and_says_what_lies_outside():
    names = torch.arange(2**40, 2**40 + 25).view(1, 5, 5)
    away = Warp(affine=matrix([1, 0, 0.8], [0, 1, 0]), size=5).mask(names, outside=-1)
    assert torch.equal(away[0], torch.cat([names[0, :, 2:], torch.full((5, 2), -1)], dim=1))


def test_a_box_is_moved_to_where_the_mask_of_it_is():
    boxes = torch.tensor([[3, 5, 9, 8], [0, 0, 20, 20], [18, 1, 19, 19]])
    image = torch.zeros(40, 1, 20, 20)
    warp = Geometry(32, **EVERYTHING, elastic=0.02).draw(image, seeded())
    found = warp.boxes(boxes.expand(40, 3, 4), height=20, width=20)
    for j, (left, top, right, bottom) in enumerate(boxes.tolist()):
        mask = torch.zeros(40, 20, 20, dtype=torch.bool)
        mask[:, top:bottom, left:right] = True
        for i, shown in enumerate(warp.mask(mask)):
            if not shown.any():
                assert found[i, j].isnan().all()
                continue
            rows, columns = shown.any(1).nonzero(), shown.any(0).nonzero()
            expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert found[i, j].tolist() == [float(edge) for edge in expected]


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_view_that_shrinks_its_image_averages_instead_of_skipping(factor):
    image = noise(2, 1, 128, 128)
    size = 128 // factor
    view = Geometry(size).forward(image)
    expected = F.interpolate(image, (size, size), mode="area")
    torch.testing.assert_close(view, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", [100, 131])
def test_an_odd_shrinkage_is_near_pillows_antialiased_one(side):
    from PIL import Image

    grain = noise(1, 1, side, side)
    view = Geometry(32, padding="border").forward(grain)[0, 0].numpy()
    expected = np.asarray(Image.fromarray(grain[0, 0].numpy()).resize((32, 32), Image.Resampling.BILINEAR))
    plain = warp(grain, matrix([1, 0, 0], [0, 1, 0]), size=32, padding="border")[0, 0].numpy()
    assert np.abs(view - expected).mean() < 0.5 * np.abs(plain - expected).mean()


def test_only_the_images_that_shrink_much_are_averaged():
    image = noise(2, 1, 64, 64)
    affine = torch.cat([matrix([0.25, 0, 0], [0, 0.25, 0]), matrix([1, 0, 0], [0, 1, 0])])
    sharp = Warp(affine=affine, size=16, antialias=False).image(image)
    view = Warp(affine=affine, size=16).image(image)
    assert torch.equal(view[0], sharp[0])
    assert (view[1] - sharp[1]).abs().max() > 0.1
    assert view[1].std() < 0.5 * sharp[1].std()


def test_a_policy_knows_whether_its_views_may_shrink_an_image():
    image = torch.zeros(1, 1, 64, 64)
    assert not Geometry(64, area=(0.2, 1)).draw(image).antialias
    assert Geometry(32, area=(0.2, 1)).draw(image).antialias
    assert Geometry(64, scale=(0.5, 1)).draw(image).antialias
    assert Geometry(64, shear=60).draw(image).antialias


def test_a_resized_image_equals_pillow():
    """Pillow's bilinear filter is anti-aliased too."""
    from PIL import Image

    image = noise(1, 1, 32, 32)
    expected = np.asarray(Image.fromarray(image[0, 0].numpy()).resize((13, 13), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(resize(image, 13)[0, 0].numpy(), expected, atol=1e-4)
    assert resize(image, 32) is image
    assert resize(noise(1, 1, 20, 32), 8).shape == (1, 1, 8, 8)


def test_draws_are_even_within_their_range():
    drawn = uniform(4000, -2, 3, torch.zeros(1), seeded())
    assert stats.kstest(drawn.numpy(), stats.uniform(-2, 5).cdf).pvalue > 0.01
