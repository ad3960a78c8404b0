"""Volume files as images: values, windows, parts, empty slices, masks, and what is refused."""

import bz2
import gzip
import logging
import os
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest

from kontrast.data.nifti import is_volume, look, open_stack, read, read_mask, shown, stored
from kontrast.data.nifti.bias import corrected
from kontrast.data.reading import MAX_VALUES, LeftOut, Reading
from kontrast.errors import InputError

nibabel = pytest.importorskip("nibabel")
nrrd = pytest.importorskip("nrrd")

EVERY = Reading(window="full", keep_empty=True)


def noise(shape=(5, 6, 7), dtype=np.int16, low=0, high=1000):
    return np.random.default_rng(0).integers(low, high, shape).astype(dtype)


def save(path, values, affine=None, *, scale=None, kind=nibabel.Nifti1Image, **fields):
    """Writes NIfTI; `fields` are set in the header behind nibabel's back."""
    image = kind(values, np.eye(4) if affine is None else affine)
    if scale is not None:
        image.header.set_slope_inter(*scale)
    content = bytearray(image.to_bytes())
    header = type(image.header)(bytes(content[: image.header.sizeof_hdr]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[: image.header.sizeof_hdr] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(content)) if path.name.endswith(".gz") else bytes(content))
    return path


def write_nrrd(path, lines, data=b""):
    path.write_bytes("\n".join(["NRRD0004", *lines, "", ""]).encode() + data)
    return path


def images(path, how=EVERY):
    """All slices, after a check that they are those which `look` names."""
    contents, found = look(path, how), list(read(path, how))
    assert len(contents.headers) == len(contents.parts) == len(found) == len(set(contents.parts))
    for header, image in zip(contents.headers, found, strict=True):
        assert image.shape == (header.height, header.width, header.channels)
        assert image.dtype == (np.uint8 if header.channels == 3 else np.uint16)
    return np.stack(found)


@pytest.mark.parametrize("name", ["a.nii", "A.NII", "a.b.nii.gz", "A.Nii.GZ", "a.nrrd", "a.NHDR"])
def test_volumes_are_known_by_their_names(tmp_path, name):
    assert is_volume(tmp_path / name)


@pytest.mark.parametrize("name", ["a.gz", "a.hdr", "a.img", "nii", "a.nii.png", "a.dcm"])
def test_others_are_none(tmp_path, name):
    assert not is_volume(tmp_path / name)


# Values


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_on_the_full_range_all_levels_stay_distinct(tmp_path, dtype):
    values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(16, 16, -1)
    for least in (0, 3):
        path = save(tmp_path / "a.nii.gz", np.maximum(values, least), kind=nibabel.Nifti1Image)
        found = images(path)
        assert len(np.unique(found)) == values.size - least
        assert (found.min(), found.max()) == (0, 65535)
        assert look(path, EVERY).headers[0].bits == 8 * values.itemsize
    found = images(save(tmp_path / "b.nii", values))
    expected = values.astype(np.uint16) * (257 if dtype == np.uint8 else 1)
    np.testing.assert_array_equal(found[..., 0], expected.transpose(2, 1, 0)[:, ::-1])


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint32, np.uint64, np.float32, np.float64])
@pytest.mark.parametrize("order", "<>")
def test_every_type_and_byte_order_is_read_by_value(tmp_path, dtype, order):
    values = noise(dtype=dtype, high=120)
    image = nibabel.Nifti1Image(values, np.eye(4), dtype=dtype)
    content = image.to_bytes()
    if order == ">":
        header = image.header.as_byteswapped(">")
        header.set_data_offset(352)
        content = header.binaryblock + bytes(4) + values.astype(values.dtype.newbyteorder(">")).tobytes(order="F")
    (tmp_path / "a.nii").write_bytes(content)
    found = images(tmp_path / "a.nii")[..., 0].astype(float) / 65535
    expected = (values.astype(float) - values.min()) / np.ptp(values.astype(float))
    np.testing.assert_allclose(found, expected.transpose(2, 1, 0)[:, ::-1], atol=1e-5)


def test_a_window_is_that_of_the_scaled_values(tmp_path):
    stored = np.repeat(np.array([0, 924, 1024, 1104, 1200], np.int16), 2).reshape(5, 2, 1).repeat(2, axis=2)
    path = save(tmp_path / "a.nii", stored, scl_slope=1, scl_inter=-1024)
    for window, expected in (
        ("brain", [0, 0, 0, 65535, 65535]),
        ("-100:100", [0, 0, 32768, 58982, 65535]),
        ("full", [0, 50462, 55924, 60293, 65535]),
    ):
        found = images(path, Reading(window=window, keep_empty=True))[0, 0, :, 0]
        np.testing.assert_allclose(found, expected, atol=1)
    path = save(tmp_path / "b.nii", stored, scl_slope=-2, scl_inter=10)
    assert images(path)[0, 0, :, 0].tolist()[0] == 65535


@pytest.mark.parametrize("window", ["auto", "percentile"])
def test_the_range_is_that_of_the_volume_and_not_of_a_slice(tmp_path, window):
    values = np.ones((10, 10, 5), np.float32) * np.arange(5) * 100
    values[0] += 50
    found = images(save(tmp_path / "a.nii", values), Reading(window=window, keep_empty=True))
    assert (np.diff(found[:, 5, 5, 0].astype(int)) > 0).all()


@pytest.mark.parametrize("slope", [0, np.nan, np.inf])
def test_a_slope_that_says_nothing_leaves_values_as_they_are(tmp_path, slope):
    path = save(tmp_path / "a.nii", noise(), scl_slope=slope, scl_inter=5)
    np.testing.assert_array_equal(images(path), images(save(tmp_path / "b.nii", noise())))


def test_what_is_no_number_is_black_and_what_is_infinite_black_or_white(tmp_path):
    values = noise(dtype=np.float32)
    values[0, 0, 0], values[1, 0, 0], values[2, 0, 0] = np.nan, np.inf, -np.inf
    for spacing in (None, 1.0001):
        found = images(save(tmp_path / "a.nii", values), Reading(keep_empty=True, spacing=spacing))
        np.testing.assert_allclose(found[0, -1, :3, 0], [0, 65535, 0], atol=0 if spacing is None else 30)


def test_values_as_large_as_floating_point_goes_are_no_error(tmp_path):
    values = noise(dtype=np.float64)
    values[0, 0, 0], values[1, 1, 1] = 1e308, -1e308
    images(save(tmp_path / "a.nii", values))
    values[0], values[1] = 3e38, -3e38
    images(save(tmp_path / "a.nii", values))
    images(save(tmp_path / "a.nii", values), Reading(window="0:1e300", keep_empty=True, spacing=0.7))
    with pytest.raises(ValueError, match="too large"):
        images(save(tmp_path / "a.nii", np.full((4, 4, 4), 3.4028235e38, np.float32)))


def test_colours_are_kept(tmp_path):
    values = noise((4, 5, 3, 3), np.uint8, high=256)
    voxels = values.view(np.dtype([(name, "u1") for name in "RGB"]))[..., 0]
    path = save(tmp_path / "a.nii.gz", voxels)
    contents = look(path, Reading())
    assert (contents.headers[0].channels, contents.headers[0].bits) == (3, 8)
    found = images(path)
    np.testing.assert_array_equal(found, values.transpose(2, 1, 0, 3)[:, ::-1])
    assert images(path, Reading(spacing=0.5)).shape == (3, 10, 8, 3)


def test_transparent_colours_are_black(tmp_path):
    values = np.full((4, 5, 1, 4), 200, np.uint8)
    values[0, ..., 3], values[1, ..., 3] = 0, 255
    voxels = values.view(np.dtype([(name, "u1") for name in "RGBA"]))[..., 0]
    found = images(save(tmp_path / "a.nii", voxels))[0]
    assert found[:, 0].max() == 0
    assert (found[:, 1] == 200).all()
    assert (found[:, 2] == 157).all()


# Slices and their names


@pytest.mark.parametrize(("axis", "letter", "count"), [("axial", "z", 7), ("coronal", "y", 6), ("sagittal", "x", 5)])
def test_slices_are_numbered_along_their_axis(tmp_path, axis, letter, count):
    path = save(tmp_path / "a.nii", noise())
    contents = look(path, Reading(axis=axis))
    assert contents.parts == tuple(f"#{letter}{number}" for number in range(count))
    path = save(tmp_path / "b.nii", noise((5, 6, 7, 2)))
    both = tuple(f"#t{time}{letter}{number}" for time in (0, 1) for number in range(count))
    assert look(path, Reading(axis=axis)).parts == both
    assert len(images(path, Reading(axis=axis))) == 2 * count


def test_each_volume_of_a_fourth_axis_has_a_range_of_its_own(tmp_path):
    values = noise((5, 6, 7, 2))
    values[..., 1] = values[..., 0] * 20
    found = images(save(tmp_path / "a.nii", values), Reading())
    np.testing.assert_allclose(found[:7].astype(int), found[7:].astype(int), atol=1)


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 1, 1)])
@pytest.mark.parametrize("axis", ["axial", "coronal"])
def test_a_file_one_voxel_thick_is_one_image(tmp_path, shape, axis):
    values = noise(shape)
    path = save(tmp_path / "a.nii", values)
    assert look(path, Reading(axis=axis)).parts == ("",)
    np.testing.assert_array_equal(images(path)[0, ..., 0].argsort(None), values.reshape(5, 6).T[::-1].argsort(None))
    stack = open_stack(path, Reading(axis=axis))
    np.testing.assert_array_equal(stack.restack(stack.cut(values.reshape(stack.shape))), values.reshape(stack.shape))


def test_a_coronal_slice_of_its_own_is_an_image_too(tmp_path):
    path = save(tmp_path / "a.nii", noise((5, 1, 7)))
    assert look(path, Reading()).headers[0].height == 7
    assert look(path, Reading()).parts == ("",)
    path = save(tmp_path / "b.nii", noise((5, 6, 1, 3)))
    assert look(path, Reading()).parts == ("#t0", "#t1", "#t2")


def test_slices_that_show_nothing_are_left_out_or_kept(tmp_path):
    values = noise(low=50) + 2000
    values[..., 0], values[..., 3], values[:, 2] = 0, 2500, 0
    values[:, 2, 3] = 2500
    path = save(tmp_path / "a.nii", values)
    assert look(path, Reading()).parts == ("#z1", "#z2", "#z4", "#z5", "#z6")
    assert look(path, Reading(axis="sagittal")).parts == tuple(f"#x{number}" for number in range(5))
    assert len(look(path, Reading(keep_empty=True)).parts) == 7
    assert len(images(path, Reading(spacing=3.0))) == 5
    assert look(path, Reading(window="2400:2401")).parts != ()


def test_a_window_can_make_slices_empty(tmp_path):
    values = np.zeros((4, 4, 3), np.int16)
    values[0, 0] = (10, 100, 1000)
    path = save(tmp_path / "a.nii", values)
    assert look(path, Reading(window="50:200")).parts == ("#z1", "#z2")
    assert len(images(path, Reading(window="50:200"))) == 2
    with pytest.raises(LeftOut, match="no slice"):
        look(path, Reading(window="5000:6000"))


@pytest.mark.parametrize("value", [0, 7, np.nan, 1e30])
def test_a_volume_that_shows_nothing_is_left_out(tmp_path, value):
    path = save(tmp_path / "a.nii", np.full((4, 4, 3), value, np.float32))
    for attempt in (
        lambda: look(path, Reading()),
        lambda: list(read(path, Reading())),
        lambda: open_stack(path, Reading()),
    ):
        with pytest.raises(LeftOut):
            attempt()
    assert not images(path, Reading(keep_empty=True)).any()


def test_resampled_slices_have_the_size_and_spacing_of_their_header(tmp_path):
    path = save(tmp_path / "a.nii", noise((20, 30, 4)), np.diag([0.5, 2, 5, 1]))
    header = look(path, Reading(spacing=1.0)).headers[0]
    assert (header.height, header.width, header.spacing) == (60, 10, (1.0, 1.0))
    assert images(path, Reading(spacing=1.0)).shape == (4, 60, 10, 1)
    assert look(path, Reading()).headers[0].spacing == (2.0, 0.5)


def test_the_group_is_the_file_so_that_volumes_of_one_name_differ(tmp_path):
    groups = set()
    for name in "ab":
        (tmp_path / name).mkdir()
        groups.add(look(save(tmp_path / name / "t1.nii", noise()), Reading()).groups)
    assert len(groups) == 2
    assert all(group.startswith("volume:") for [group] in groups)


@pytest.mark.parametrize(
    "names", [("sub-07/anat/T1w.nii", "sub-07/ses-2/T2w.nii"), ("sub-07_T1w.nii", "sub-07_T2w.nii")]
)
def test_volumes_of_one_subject_are_one_group(tmp_path, names):
    groups = set()
    for name in (*names, "other/sub-08_T1w.nii", "sub-070/T1w.nii"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        groups.add(look(save(tmp_path / name, noise()), Reading()).groups)
    assert len(groups) == 3


def test_with_empty_slices_kept_the_header_is_enough(tmp_path, monkeypatch):
    path = save(tmp_path / "a.nii.gz", noise())
    before = look(path, Reading(keep_empty=True))
    path.write_bytes(path.read_bytes()[:-300])
    assert look(path, Reading(keep_empty=True)) == before
    with pytest.raises(EOFError):
        look(path, Reading())


# NRRD


def raw(values):
    return values.astype("<i2").tobytes(order="F")


FIELDS = ["type: short", "dimension: 3", "sizes: 5 6 7", "endian: little"]
LPS = ["space: left-posterior-superior", "space directions: (2,0,0) (0,2,0) (0,0,3)", "space origin: (1,2,3)"]


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("raw", raw),
        ("gzip", lambda values: gzip.compress(raw(values))),
        ("gz", lambda values: gzip.compress(raw(values))),
        ("bzip2", lambda values: bz2.compress(raw(values))),
        ("text", lambda values: " ".join(map(str, values.ravel(order="F"))).encode()),
    ],
)
def test_nrrd_is_the_same_volume_as_nifti(tmp_path, encoding, packed):
    values = noise()
    path = write_nrrd(tmp_path / "a.nrrd", [*FIELDS, *LPS, f"encoding: {encoding}"], packed(values))
    same = save(tmp_path / "a.nii", values, np.diag([-2, -2, 3, 1]) + np.array([[0, 0, 0, x] for x in (-1, -2, 3, 0)]))
    np.testing.assert_array_equal(images(path), images(same))
    np.testing.assert_allclose(open_stack(path, EVERY).affine, open_stack(same, EVERY).affine)
    assert look(path, EVERY).headers == look(same, EVERY).headers


@pytest.mark.parametrize(
    ("space", "signs"),
    [("right-anterior-superior", (1, 1)), ("LAS", (-1, 1)), ("LPS", (-1, -1)), ("scanner-xyz", (-1, -1))],
)
def test_the_space_of_nrrd_is_turned_to_ras(tmp_path, space, signs):
    path = write_nrrd(tmp_path / "a.nrrd", [*FIELDS, f"space: {space}", LPS[1], "encoding: raw"], raw(noise()))
    assert np.diag(open_stack(path, EVERY).affine).tolist() == [2 * signs[0], 2 * signs[1], 3, 1]


def test_what_pynrrd_writes_is_read(tmp_path):
    values = noise()
    nrrd.write(str(tmp_path / "a.nrrd"), values, {"space directions": np.diag([1.0, 2, 3]), "space": "RAS"})
    nrrd.write(str(tmp_path / "b.nhdr"), values, {"spacings": [1.0, 2, 3]})
    np.testing.assert_array_equal(
        open_stack(tmp_path / "a.nrrd", EVERY).cut(values), values.transpose(2, 1, 0)[:, ::-1]
    )
    assert look(tmp_path / "b.nhdr", EVERY).headers == look(tmp_path / "a.nrrd", EVERY).headers
    np.testing.assert_array_equal(images(tmp_path / "a.nrrd"), images(tmp_path / "b.nhdr")[:, ::-1, ::-1])


@pytest.mark.parametrize("first", [True, False])
def test_colours_and_times_of_nrrd_are_told_apart(tmp_path, first):
    def made(kind, count, dtype, code):
        values = noise((5, 6, 7, count), dtype, high=256)
        where = 0 if first else 3
        sizes, kinds, directions = ["5", "6", "7"], ["domain"] * 3, ["(1,0,0)", "(0,1,0)", "(0,0,1)"]
        for words, word in ((sizes, str(count)), (kinds, kind), (directions, "none")):
            words.insert(where, word)
        lines = [f"type: {code}", "dimension: 4", "space: RAS", "endian: little", "encoding: raw"]
        for field, words in (("sizes", sizes), ("kinds", kinds), ("space directions", directions)):
            lines.append(f"{field}: {' '.join(words)}")
        data = np.moveaxis(values, -1, where).tobytes(order="F")
        return values, write_nrrd(tmp_path / f"{kind}.nrrd", lines, data)

    values, path = made("RGB-color", 3, np.uint8, "uchar")
    np.testing.assert_array_equal(images(path), values.transpose(2, 1, 0, 3)[:, ::-1])
    values, path = made("list", 2, np.int16, "short")
    assert len(look(path, EVERY).parts) == 14
    np.testing.assert_array_equal(open_stack(path, EVERY).cut(values)[7:], values[..., 1].transpose(2, 1, 0)[:, ::-1])


@pytest.mark.parametrize(
    "skips", [["byteskip: 9"], ["line skip: 2"], ["line skip: 1", "byte skip: 4"], ["byteskip: -1"]]
)
def test_bytes_and_lines_before_the_values_are_skipped(tmp_path, skips):
    path = write_nrrd(tmp_path / "a.nhdr", [*FIELDS, "encoding: raw", *skips, "data file: a.raw"])
    (tmp_path / "a.raw").write_bytes(b"abc\ndefg\n" + raw(noise()))
    if skips == ["line skip: 1", "byte skip: 4"]:
        (tmp_path / "a.raw").write_bytes(b"abc\ndefg" + raw(noise()))
    np.testing.assert_array_equal(
        images(path), images(write_nrrd(tmp_path / "b.nrrd", [*FIELDS, "encoding: raw"], raw(noise())))
    )


@pytest.mark.parametrize(
    "name",
    ["../a.raw", "/etc/passwd", "sub/../../a.raw", "http://host/a.raw", "file:///etc/passwd", "..\\a.raw", "link.raw"],
)
def test_values_outside_the_folder_of_their_header_are_refused(tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "a.raw").write_bytes(raw(noise()))
    (tmp_path / "in" / "link.raw").symlink_to(tmp_path / "a.raw")
    path = write_nrrd(tmp_path / "in" / "a.nhdr", [*FIELDS, "encoding: raw", f"data file: {name}"])
    for attempt in (look, lambda *how: list(read(*how))):
        with pytest.raises(ValueError, match="must lie in the folder"):
            attempt(path, Reading())


# Masks


@pytest.mark.parametrize(
    "how", [Reading(), Reading(axis="coronal"), Reading(spacing=0.7), Reading(axis="sagittal", spacing=1.6)]
)
def test_slices_of_a_mask_pair_up_with_those_of_the_image(tmp_path, how):
    values = noise((20, 24, 16))
    values[:, :, :3], values[:4], values[:, 20:] = 0, 0, 0
    labels = (values > 500).astype(np.int16) * 3
    image = save(tmp_path / "image.nii", values, np.diag([1, 0.8, 2, 1]))
    mask = save(tmp_path / "mask.nii.gz", labels, np.diag([1, 0.8, 2, 1]))
    stack, shown = open_stack(image, how), images(image, how)
    found = read_mask(mask, stack)
    assert found.dtype == np.int32
    assert found.shape == shown.shape[:3]
    assert set(np.unique(found)) == {0, 3}
    if how.spacing is None:
        np.testing.assert_array_equal(found > 0, shown[..., 0] > np.sort(shown[..., 0][found == 0])[-1])


def test_a_mask_stored_in_another_orientation_still_fits(tmp_path):
    values, affine = noise(), np.diag([1.0, 2, 3, 1])
    image = save(tmp_path / "image.nii", values, affine)
    turned = nibabel.Nifti1Image((values > 500).astype(np.uint8), affine).as_reoriented([[2, -1], [0, 1], [1, -1]])
    turned.to_filename(tmp_path / "mask.nii")
    straight = save(tmp_path / "straight.nii", (values > 500).astype(np.float32), affine)
    stack = open_stack(image, Reading())
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii", stack), read_mask(straight, stack))


def test_one_mask_serves_every_volume_of_the_fourth_axis(tmp_path):
    image = save(tmp_path / "image.nii", noise((5, 6, 7, 2)))
    mask = save(tmp_path / "mask.nii", noise(high=3))
    found = read_mask(mask, open_stack(image, Reading()))
    assert len(found) == 14
    np.testing.assert_array_equal(found[:7], found[7:])


def test_a_mask_that_does_not_lie_on_its_image_is_refused_with_the_difference(tmp_path):
    stack = open_stack(save(tmp_path / "image.nii", noise()), Reading())
    with pytest.raises(InputError, match="6 x 5 x 7 and the image 5 x 6 x 7"):
        read_mask(save(tmp_path / "mask.nii", noise((6, 5, 7))), stack)
    shifted = np.eye(4)
    shifted[0, 3] = 2.5
    with pytest.raises(InputError, match=r"lies 2\.5 mm beside it"):
        read_mask(save(tmp_path / "mask.nii", noise(), shifted), stack)
    shifted[0, 3] = 0.01
    read_mask(save(tmp_path / "mask.nii", noise(), shifted), stack)


@pytest.mark.parametrize("value", [0.5, np.nan, 1e12])
def test_a_mask_of_other_than_whole_numbers_is_refused(tmp_path, value):
    stack = open_stack(save(tmp_path / "image.nii", noise()), Reading())
    with pytest.raises(ValueError, match="whole numbers"):
        read_mask(save(tmp_path / "mask.nii", np.full((5, 6, 7), value)), stack)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("codes", [(0, 2), (1, 0), (3, 4), (0, 0)])
def test_a_map_is_written_with_the_geometry_of_its_image_and_none_of_its_words(tmp_path, kind, codes):
    affine = nibabel.affines.from_matvec(np.diag([-1.25, 2, 3.5]) @ np.eye(3)[[0, 2, 1]], [5, 6, 7])
    image = kind(noise(), affine)
    image.set_qform(affine, int(codes[0]))
    image.set_sform(affine, int(codes[1]))
    image.header["descrip"] = b"JOHN DOE"
    image.header["aux_file"] = b"JOHN DOE"
    image.to_filename(tmp_path / "image.nii")
    stack = open_stack(tmp_path / "image.nii", Reading())
    labels = (stack.cut(noise()) > 500).astype(np.uint8)
    stack.write(tmp_path / "map.nii.gz", stack.restack(labels))
    before, after = (nibabel.load(tmp_path / name) for name in ("image.nii", "map.nii.gz"))
    assert type(after) is type(before)
    np.testing.assert_array_equal(np.asarray(after.dataobj), noise() > 500)
    np.testing.assert_array_equal(after.affine, before.affine)
    assert after.header.get_zooms() == before.header.get_zooms()
    for field in ("qform_code", "sform_code", "quatern_b", "qoffset_x", "srow_x", "xyzt_units", "pixdim"):
        np.testing.assert_array_equal(after.header[field], before.header[field])
    assert b"JOHN" not in gzip.decompress((tmp_path / "map.nii.gz").read_bytes())


# What is refused


BROKEN = {
    "an axis of 0": {"dim": [3, 5, 0, 7, 1, 1, 1, 1]},
    "an axis of -7": {"dim": [3, 5, 6, -7, 1, 1, 1, 1]},
    "two to four axes": {"dim": [5, 5, 6, 7, 1, 2, 1, 1]},
    "one to seven axes": {"dim": [0, 5, 6, 7, 1, 1, 1, 1]},
    "one to seven": {"dim": [9, 5, 6, 7, 1, 1, 1, 1]},
    "more than": {"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]},
    "claims": {"dim": [3, 5, 6, 77, 1, 1, 1, 1]},
    "no header of NIfTI": {"sizeof_hdr": 349},
    "no magic": {"magic": b"ni1"},
    "999, that NIfTI has not": {"datatype": 999},
    "type 32 of NIfTI": {"datatype": 32},
    "type 1 of NIfTI": {"datatype": 1},
    "begin at byte": {"vox_offset": -4},
    "begin at byte nan": {"vox_offset": np.nan},
    "begin at byte 1e": {"vox_offset": 1e30},
    "not finite": {"srow_x": [np.nan, 0, 0, 0]},
    "kilometres": {"srow_x": [1e30, 0, 0, 0]},
    "singular": {"srow_x": [0, 0, 0, 0]},
    "no size": {"srow_x": [1e-9, 0, 0, 0], "srow_y": [0, 1, 0, 0]},
    "or has voxels": {"sform_code": 0, "pixdim": [1, 0, 1, 1, 1, 1, 1, 1]},
    "intercept": {"scl_slope": 2, "scl_inter": np.nan},
}


@pytest.mark.parametrize("packed", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("said", BROKEN)
def test_a_broken_header_is_refused_in_a_few_words(tmp_path, said, packed, caplog, capfd):
    path = save(tmp_path / packed, noise(), descrip=b"JOHN DOE", **BROKEN[said])
    if said == "claims" and packed.endswith(".gz"):
        path = save(tmp_path / packed, noise(), dim=[3, 5000, 6000, 7, 1, 1, 1, 1])
    with caplog.at_level(logging.DEBUG), pytest.raises(Exception, match=said) as caught:
        look(path, Reading(keep_empty=True))
    assert not isinstance(caught.value, InputError)
    assert len(str(caught.value)) < 150
    assert "JOHN" not in str(caught.value)
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


def test_odd_headers_that_can_be_read_are_read_without_a_word(tmp_path, caplog, capfd):
    path = save(tmp_path / "a.nii", noise(), bitpix=3, qform_code=77, regular=b"x", pixdim=[3, -1, 1, 1, 1, 1, 1, 1])
    with caplog.at_level(logging.DEBUG):
        assert len(images(path)) == 7
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


def test_more_values_than_are_read_of_one_file_are_refused_unread(tmp_path):
    path = save(tmp_path / "a.nii", noise(), kind=nibabel.Nifti2Image, dim=[3, 2**31, 6, 7, 1, 1, 1, 1])
    with pytest.raises(ValueError, match=f"more than the {MAX_VALUES:,}"):
        look(path, Reading())
    path = save(tmp_path / "a.nii", noise(), kind=nibabel.Nifti2Image, dim=[3, 1, 1, 2**20, 1, 1, 1, 1])
    with pytest.raises(ValueError, match="slices"):
        look(path, Reading(keep_empty=True))
    path = save(tmp_path / "b.nii", noise(), np.diag([50.0, 50, 1, 1]))
    with pytest.raises(ValueError, match=r"slices of 300,000 x 250,000 pixels"):
        look(path, Reading(spacing=0.001))
    path = save(tmp_path / "c.nii", noise((5, 6, 70)), np.diag([50.0, 50, 1, 1]))
    with pytest.raises(ValueError, match="the slices at this spacing"):
        look(path, Reading(spacing=0.055))


def sparse(path, shape, dtype):
    """A NIfTI of zeros, that takes no room on disk."""
    header = nibabel.Nifti1Image(np.zeros((1, 1, 1), dtype), np.eye(4)).header
    header.set_data_shape(shape)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path.write_bytes(header.binaryblock)
    os.truncate(path, 352 + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
    return path


def test_a_ct_of_a_whole_body_is_read_and_what_takes_more_than_4_gib_refused(tmp_path):
    whole_body = look(sparse(tmp_path / "ct.nii", (512, 512, 2000), np.int16), EVERY)
    assert len(whole_body.headers) == 2000
    assert len(look(sparse(tmp_path / "most.nii", (512, 512, 2048), np.float64), EVERY).headers) == 2048
    with pytest.raises(ValueError, match="more than the 4,294,967,296 that are held"):
        look(sparse(tmp_path / "more.nii", (512, 512, 2049), np.float64), EVERY)


def test_large_volumes_are_held_by_one_thread_at_a_time_which_may_hold_several(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "LARGE", 100)
    path, other = save(tmp_path / "a.nii", noise()), save(tmp_path / "b.nii", noise())
    both = zip(read(path, EVERY), read(other, EVERY), strict=True)
    next(both)
    found = []
    waiting = threading.Thread(target=lambda: found.append(look(path, Reading(window="full"))), daemon=True)
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive(), "two threads hold large volumes"
    del both  # as a reader does that has seen enough
    waiting.join(30)
    assert len(found) == 1


def test_volumes_that_are_not_large_do_not_wait(tmp_path):
    path = save(tmp_path / "a.nii", noise())
    first = read(path, EVERY)
    next(first)
    other = threading.Thread(target=lambda: list(read(path, EVERY)), daemon=True)
    other.start()
    other.join(30)
    assert not other.is_alive()


@pytest.mark.parametrize("scale", [None, (2.0, -5.0)])
@pytest.mark.parametrize("window", ["full", "percentile", "0:900"])
@pytest.mark.parametrize("dtype", [np.int16, np.float64])
def test_reading_holds_little_more_than_the_values_as_they_are_stored(tmp_path, monkeypatch, dtype, window, scale):
    monkeypatch.setattr(shown, "_AT_ONCE", 1 << 14)
    monkeypatch.setattr(shown, "_SAMPLE", 1 << 14)
    monkeypatch.setattr(stored, "_CHUNK", 1 << 16)
    values = noise((60, 100, 200), dtype)
    path = save(tmp_path / "a.nii", values, scale=scale)
    tracemalloc.start()
    for _ in read(path, Reading(window=window)):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * values.nbytes + 1_500_000


def test_n4_of_more_voxels_than_fit_is_refused():
    with pytest.raises(ValueError, match="at most 268,435,456 voxels"):
        corrected(np.broadcast_to(np.float32(1), (1024, 1024, 257)), (1, 1, 1))


def test_a_truncated_or_changed_gzip_is_refused(tmp_path):
    path = save(tmp_path / "a.nii.gz", noise((20, 20, 20)))
    content = path.read_bytes()
    for damaged in (content[:-1], content[: len(content) // 2], content[:-6] + b"\0\0" + content[-4:], content[:30]):
        path.write_bytes(damaged)
        with pytest.raises((EOFError, OSError)):
            look(path, Reading())


def test_a_file_that_unpacks_to_more_than_it_claims_is_not_unpacked(tmp_path):
    content = nibabel.Nifti1Image(noise(), np.eye(4)).to_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content + bytes(1 << 28), 1))
    code = (
        "import resource, sys; from pathlib import Path; from kontrast.data.nifti import read;"
        "from kontrast.data.reading import Reading; import nibabel;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "assert len(list(read(Path(sys.argv[1]), Reading()))) == 7;"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.nii.gz")], check=True)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["type: short", "dimension: 3", "sizes: 5 6 7"], "no encoding"),
        ([*FIELDS, "encoding: hex"], "encoding other than"),
        ([*FIELDS[:3], "encoding: raw"], "endian"),
        (["type: block", *FIELDS[1:], "encoding: raw"], "type of values"),
        (["type: short", "dimension: 2", *FIELDS[2:], "encoding: raw"], "2 axes and 3 sizes"),
        (["type: short", "dimension: 3", "sizes: 5 6 -7", "endian: little", "encoding: raw"], "axis of -7"),
        (["type: short", "dimension: 3", "sizes: 5 6 a", "endian: little", "encoding: raw"], "damaged"),
        (
            ["type: short", "dimension: 3", f"sizes: 5 6 {10**30}", "endian: little", "encoding: raw"],
            "damaged|more than",
        ),
        (["type: short", "dimension: 3", "sizes: 5 6 700", "endian: little", "encoding: raw"], "claims"),
        ([*FIELDS, "encoding: raw", "byte skip: -5"], "skipped"),
        ([*FIELDS, "encoding: gzip", "byte skip: -1"], "skipped"),
        ([*FIELDS, "encoding: raw", "data file: LIST"], "several files"),
        ([*FIELDS, "encoding: raw", "data file: a%02d.raw 1 7 1"], "several files"),
        ([*FIELDS, "encoding: raw", "data file: gone.raw"], "not there"),
        ([*FIELDS, "encoding: raw", "space directions: (1,0,0) (0,1,0)"], "2 directions for 3 axes"),
        ([*FIELDS, "encoding: raw", "space directions: (1,0,0) (1,0,0) (0,0,1)"], "singular"),
        ([*FIELDS, "encoding: raw", "space directions: (1,0,0) none none"], "two or three axes"),
        ([*FIELDS, "encoding: raw", "spacings: 1 1 0"], "singular"),
        ([*FIELDS, "encoding: text"], "no numbers|ends after"),
        ([*FIELDS, "encoding: gzip"], "gzip|Not a gzipped"),
    ],
)
def test_a_broken_nrrd_is_refused_in_a_few_words(tmp_path, lines, said):
    words = ["# JOHN DOE", "content: JOHN DOE", "patient:=JOHN DOE", "patient:=JOHN DOE"]
    path = write_nrrd(tmp_path / "a.nrrd", [*words, *lines], raw(noise()))
    with pytest.raises(Exception, match=said) as caught:
        list(read(path, Reading()))
    assert len(str(caught.value)) < 150
    assert "JOHN" not in str(caught.value)


def test_odd_words_in_a_header_of_nrrd_are_passed_over(tmp_path):
    odd = ["PatientName:=JOHN DOE", "PatientName:=JOHN DOE", 'labels: "a', "nonsense", "min: x", "Sample Units: 5"]
    path = write_nrrd(tmp_path / "a.nrrd", [*odd, *FIELDS, "encoding: raw"], raw(noise()))
    assert len(images(path)) == 7


@pytest.mark.parametrize(("module", "name", "package"), [("nibabel", "a.nii", "nibabel"), ("nrrd", "a.nrrd", "pynrrd")])
def test_a_missing_package_is_named_with_the_way_to_get_it(tmp_path, monkeypatch, module, name, package):
    path = write_nrrd(tmp_path / name, [*FIELDS, "encoding: raw"], raw(noise()))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"needs {package}, which is not installed, so it cannot be done: pip"):
        look(path, Reading())


def test_a_window_that_there_is_not_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(InputError, match="a window is"):
        look(tmp_path / "gone.nii", Reading(window="heart"))


# N4


def test_n4_without_simpleitk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    path = save(tmp_path / "a.nii", noise())
    with pytest.raises(InputError, match="needs SimpleITK"):
        look(path, Reading(n4=True))


def test_n4_evens_out_a_field(tmp_path):
    pytest.importorskip("SimpleITK", reason="SimpleITK, which corrects bias fields, is not installed")
    places = np.stack(np.indices((48, 48, 32)), axis=-1)
    inside = np.linalg.norm((places - (24, 24, 16)) * (1, 1, 1.5), axis=-1) < 20
    tissue = np.random.default_rng(0).normal(100, 3, inside.shape) + 40 * (places[..., 2] % 8 < 4)
    field = np.exp((places[..., 0] - 24) / 40)
    path = save(tmp_path / "a.nii.gz", (inside * tissue * field).astype(np.float32))
    window = "0:300"
    spread = []
    for n4 in (False, True):
        how = Reading(window=window, n4=n4)
        found = images(path, how)
        assert look(path, how).parts == look(path, Reading(window=window)).parts
        middle = found[len(found) // 2, 24, 8:40, 0].astype(float)
        spread.append(middle.std() / middle.mean())
    assert spread[1] < spread[0] / 3
