"""Volumes become slices and slices volumes: exactly where nothing is resampled, in mm where it is."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from kontrast.data.nifti.resample import Grid, nearest, resample
from kontrast.data.nifti.stack import stack_of
from kontrast.data.nifti.stored import Stored, clean_header
from kontrast.data.reading import Reading
from kontrast.errors import InputError

nibabel = pytest.importorskip("nibabel")

CODES = ["".join(codes) for order in itertools.permutations(("RL", "AP", "SI")) for codes in itertools.product(*order)]
PLANES = ("axial", "coronal", "sagittal")


def affine_of(codes="RAS", sides=(1, 2, 3), tilt=0.0):
    """From voxels stored by `codes` to mm, tilted about two axes."""
    c, s = np.cos(tilt), np.sin(tilt)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    flips = nibabel.orientations.inv_ornt_aff(nibabel.orientations.axcodes2ornt(codes), (4, 5, 6))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.linalg.inv(flips) @ np.diag(sides)
    affine[:3, 3] = (-7, 11, 3)
    return affine


def stored_of(values, affine):
    return Stored(
        shape=values.shape, dtype=values.dtype, channels=1, scaling=None, affine=affine,
        header=clean_header(nibabel.Nifti1Header, affine), load=lambda: values,
    )  # fmt: skip


def noise(shape, dtype=np.int16):
    return np.random.default_rng(0).integers(0, 1000, shape).astype(dtype)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("codes", CODES)
def test_a_volume_of_any_orientation_comes_back_exactly(codes, plane):
    values = noise((4, 5, 6))
    for tilt in (0, 0.3):
        stored = stored_of(values, affine_of(codes, tilt=tilt))
        stack = stack_of(stored, Reading(axis=plane))
        again = stack.restack(stack.cut(values))
        assert again.dtype == values.dtype
        np.testing.assert_array_equal(again, values)
        np.testing.assert_array_equal(stack.affine, stored.affine)


@pytest.mark.parametrize("codes", CODES)
def test_however_it_is_stored_a_volume_is_shown_alike(codes):
    image = nibabel.Nifti1Image(noise((4, 5, 6)), affine_of("RAS"))
    other = image.as_reoriented(
        nibabel.orientations.ornt_transform(
            nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
        )
    )
    for plane in PLANES:
        shown = []
        for one in (image, other):
            values = np.asarray(one.dataobj)
            stack = stack_of(stored_of(values, one.affine), Reading(axis=plane))
            shown.append((stack.cut(values), stack.grid, stack.affine_turned))
        np.testing.assert_array_equal(shown[0][0], shown[1][0])
        assert shown[0][1] == shown[1][1]
        np.testing.assert_allclose(shown[0][2], shown[1][2], atol=1e-12)


def test_anterior_and_superior_are_at_the_top_and_left_is_left():
    right, anterior, superior = np.indices((3, 4, 5))
    for plane, down, along, number in (
        ("axial", anterior, right, superior),
        ("coronal", superior, right, anterior),
        ("sagittal", superior, anterior, right),
    ):
        stack = stack_of(stored_of(right, np.eye(4)), Reading(axis=plane))
        assert (np.diff(stack.cut(down), axis=1) == -1).all()
        assert (np.diff(stack.cut(along), axis=2) == 1).all()
        for position, cut in zip(stack.kept, stack.cut(number), strict=True):
            assert (cut == position[1]).all()


def test_the_spacing_of_a_slice_is_that_of_its_rows_and_columns():
    stored = stored_of(noise((4, 5, 6)), affine_of("PSR", sides=(0.5, 0.7, 3), tilt=0.2))
    sides = {plane: stack_of(stored, Reading(axis=plane)).grid.spacing for plane in PLANES}
    assert sides["axial"] == pytest.approx((0.5, 3))
    assert sides["coronal"] == pytest.approx((0.7, 3))
    assert sides["sagittal"] == pytest.approx((0.7, 0.5))


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASL", "IRP"])
def test_a_fourth_axis_comes_back_too(codes, plane):
    values = noise((3, 4, 5, 2))
    stack = stack_of(stored_of(values, affine_of(codes)), Reading(axis=plane))
    cut = stack.cut(values)
    assert len(cut) == len(stack.kept)
    np.testing.assert_array_equal(stack.restack(cut), values)


def test_slices_that_were_left_out_take_the_fill():
    values = noise((3, 4, 5)) + 1
    stack = stack_of(stored_of(values, np.eye(4)), Reading())
    stack = replace(stack, kept=stack.kept[1:3])
    again = stack.restack(stack.cut(values), fill=-1)
    np.testing.assert_array_equal(again[..., 1:3], values[..., 1:3])
    assert (again[..., [0, 3, 4]] == -1).all()


def test_slices_of_another_size_or_number_are_refused():
    values = noise((3, 4, 5))
    stack = stack_of(stored_of(values, np.eye(4)), Reading())
    cut = stack.cut(values)
    for wrong in (cut[1:], cut[:, 1:], cut[..., None]):
        with pytest.raises(InputError, match="slices of this volume are 5 of 4 x 3 pixels"):
            stack.restack(wrong)
    with pytest.raises(InputError, match="shape"):
        stack.cut(values[1:])


# Other spacings


def extent(cut, spacing):
    """Diameters in mm of a shape of ones along rows and columns, by its area there at half height."""
    middle = cut[len(cut) // 2]
    return tuple((middle.sum(axis=axis).max()) * step for axis, step in zip((0, 1), spacing, strict=True))


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("sides", [(0.5, 1, 2), (2, 0.8, 0.5), (1, 1, 1)])
@pytest.mark.parametrize("spacing", [0.6, 1.0, 1.7, None])
def test_a_ball_keeps_its_diameter_in_mm(plane, sides, spacing):
    counts = [round(60 / side) | 1 for side in sides]
    middle = [(count - 1) / 2 for count in counts]
    places = np.stack(np.indices(counts), axis=-1)
    values = (np.linalg.norm((places - middle) * sides, axis=-1) < 20).astype(np.float32)
    stack = stack_of(stored_of(values, np.diag([*sides, 1.0])), Reading(axis=plane, spacing=spacing))
    for found, step in zip(extent(stack.cut(values), stack.grid.spacing), stack.grid.spacing, strict=True):
        assert found == pytest.approx(40, abs=1.1 * max(step, max(sides)))


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("spacing", [0.4, 1.0, 2.5])
def test_resampled_labels_come_back_in_the_own_shape_and_nearly_the_same(plane, spacing):
    places = np.stack(np.indices((30, 40, 20)), axis=-1)
    values = (np.linalg.norm((places - (15, 20, 10)) * (1, 0.8, 1.5), axis=-1) < 10).astype(np.int16) * 7
    stack = stack_of(stored_of(values, affine_of("LSP", sides=(1, 0.8, 1.5))), Reading(axis=plane, spacing=spacing))
    labels = stack.cut(values)
    assert labels.dtype == values.dtype
    assert set(np.unique(labels)) == {0, 7}
    assert labels.shape[1:] == stack.grid.size
    again = stack.restack(labels)
    assert set(np.unique(again)) == {0, 7}
    assert again.shape == values.shape
    assert (again == values).mean() > 0.97


def test_probabilities_come_back_linearly_and_stay_between_their_extremes():
    values = np.random.default_rng(1).random((12, 14, 4), dtype=np.float32)
    smooth = np.cumsum(values, axis=0) / 12
    stack = stack_of(stored_of(smooth, np.eye(4)), Reading(spacing=0.5))
    again = stack.restack(stack.cut(smooth))
    assert again.dtype == np.float32
    assert again.min() >= smooth.min() - 1e-6
    assert again.max() <= smooth.max() + 1e-6
    assert np.abs(again - smooth).mean() < 0.05


def test_the_new_grid_has_the_spacing_asked_for_and_the_same_middle():
    old, new = Grid((100, 37), (0.7, 1.3)), Grid((100, 37), (0.7, 1.3)).at(1.0)
    assert new == Grid((70, 48), (1.0, 1.0))
    rows, columns = np.mgrid[:100, :37]
    for places, count, step in ((rows * 0.7, 100, 0.7), (columns * 1.3, 37, 1.3)):
        found = resample(places - (count - 1) / 2 * step, old, new)
        assert found.mean() == pytest.approx(0, abs=1e-4)
        inner = found[3:-3, 3:-3]
        assert np.abs(np.diff(inner, axis=0 if count == 100 else 1) - 1).max() < 0.02


def test_a_constant_stays_constant_at_every_spacing():
    plane = np.full((9, 30), 321.5, np.float32)
    for spacing in (0.01, 0.3, 1.0, 2.7, 40.0, 1e5):
        new = Grid((9, 30), (1.0, 0.3)).at(spacing) if spacing > 0.1 else Grid((5, 6), (spacing, spacing))
        np.testing.assert_allclose(resample(plane, Grid((9, 30), (1.0, 0.3)), new), 321.5, rtol=1e-6)


def test_detail_finer_than_the_new_pixels_becomes_grey_and_not_a_pattern():
    stripes = np.tile([0.0, 1.0], (40, 20))
    found = resample(stripes, Grid((40, 40), (1, 1)), Grid((40, 40), (1, 1)).at(4.0))
    assert np.abs(found[:, 1:-1] - 0.5).max() < 0.01


def test_the_nearest_of_twice_the_pixels_repeats_each():
    plane = noise((3, 4))
    found = nearest(plane, Grid((3, 4), (1, 1)), Grid((3, 4), (1, 1)).at(0.5))
    np.testing.assert_array_equal(found, plane.repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize("spacing", [0, -1, float("nan"), float("inf")])
def test_a_spacing_that_is_no_length_is_refused(spacing):
    with pytest.raises(InputError, match="positive number of mm"):
        stack_of(stored_of(noise((3, 3, 3)), np.eye(4)), Reading(spacing=spacing))


# Writing


@pytest.mark.parametrize("name", ["map.nii", "map.nii.gz", "MAP.NII.GZ"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.float32, np.float64, bool, np.float16])
def test_what_is_written_has_the_values_and_the_affine(tmp_path, name, dtype):
    values = noise((4, 5, 6), dtype)
    stack = stack_of(stored_of(values, affine_of("PIR", tilt=0.2)), Reading())
    stack.write(tmp_path / name, values)
    found = nibabel.load(tmp_path / name)
    np.testing.assert_array_equal(np.asarray(found.dataobj), values)
    np.testing.assert_allclose(found.affine, stack.affine, atol=1e-6)
    assert found.header.get_zooms() == pytest.approx((1, 2, 3))
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path, monkeypatch):
    values = noise((4, 5, 6))
    stack = stack_of(stored_of(values, np.eye(4)), Reading())
    stack.write(tmp_path / "map.nii", values)
    before = (tmp_path / "map.nii").read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        stack.write(tmp_path / "map.nii", values + 1)
    assert (tmp_path / "map.nii").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_only_nifti_is_written(tmp_path):
    values = noise((4, 5, 6))
    stack = stack_of(stored_of(values, np.eye(4)), Reading())
    with pytest.raises(InputError, match=r"\.nii or \.nii\.gz"):
        stack.write(tmp_path / "map.nrrd", values)
    with pytest.raises(InputError, match="shape"):
        stack.write(tmp_path / "map.nii", values[1:])
