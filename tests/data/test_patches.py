"""Patches of one brain: no voxel, nor its mirror image, on two sides, and each patch is what the volume shows there."""

import gzip

import numpy as np
import pytest

from kontrast.data.samples import SAMPLES, check_apart, files, find
from kontrast.data.samples.patches import BLOCK, CLASSES, GAP, LOBES, SIDE, brain_patches, lobe_of_region
from kontrast.errors import InputError

nibabel = pytest.importorskip("nibabel")

SHAPE = (181, 217, 181)
PAIRED = [name for names in LOBES.values() for name in names if name not in LOBES["cerebellum"]]
CEREBELLUM = ["Cerebelum_Crus1", "Cerebelum_Crus2", "Cerebelum_3", "Cerebelum_10"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A made brain of noise on the grid of the real one, in files of its kinds; regions lie in rows of small cubes."""
    folder = tmp_path_factory.mktemp("brain")
    brain = np.random.default_rng(0).integers(0, 255, SHAPE, dtype=np.uint8)
    regions = np.zeros(SHAPE, np.uint8)
    x, y, z = np.indices(SHAPE)[:, 17:164, 20:200, 10:156] // 6
    regions[17:164, 20:200, 10:156] = 1 + (np.abs(x - 15) + y * 3 + z * 7) % len(names())
    for name, values in (("ch2.nii.gz", brain), ("aal.nii.gz", regions)):
        (folder / name).write_bytes(gzip.compress(nibabel.Nifti1Image(values, np.eye(4)).to_bytes(), 1))
    table = [f"{number} {name} {9000 + number}" for number, name in enumerate(names(), 1)]
    (folder / "aal.nii.txt").write_text("\n".join([*table, "", ""]))
    return folder


@pytest.fixture(scope="module")
def patches(folder):
    return brain_patches(folder)


def names():
    sides = [f"{name}_{side}" for name in [*PAIRED, *CEREBELLUM] for side in "LR"]
    return [*sides, "Vermis_1_2", "Vermis_10"]


def places(patches):
    return np.array([[int(number) for number in name[1:].replace("y", "z").split("z")] for name in patches.names])


def voxels(places):
    """Which voxels, and their mirror images, are in a patch."""
    covered = np.zeros(SHAPE, bool)
    half = SIDE // 2
    for x, y, z in places:
        covered[x - half : x + half, y - half : y + half, z] = True
    return covered | covered[::-1]


def test_all_regions_have_a_lobe():
    found = lobe_of_region("\n".join(f"{number} {name} 0" for number, name in enumerate(names(), 1)))
    assert (found[1 : len(names()) + 1] >= 0).all()
    assert (found[[0, *range(len(names()) + 1, 256)]] == -1).all()
    assert CLASSES[found[1 + names().index("Fusiform_R")]] == "temporal"
    assert CLASSES[found[1 + names().index("Vermis_10")]] == "cerebellum"
    assert len(set(PAIRED)) == len(PAIRED) == 45


@pytest.mark.network
def test_classes_are_the_first_digits_of_the_codes_of_aal_but_for_three_choices():
    table = files("brain-patches")["aal.nii.txt"].read_text()
    found = lobe_of_region(table)
    digits = {"2": "frontal", "4": "limbic", "5": "occipital", "6": "parietal", "7": "central", "8": "temporal",
              "9": "cerebellum", "3": ""}  # fmt: skip
    rows = [line.split() for line in table.splitlines() if line.strip()]
    other = {name[:-2] for number, name, code in rows if CLASSES[found[int(number)]] != digits[code[0]]}
    assert len(rows) == 116
    assert other == {"Fusiform", "Paracentral_Lobule", "Insula"}


def test_a_patch_is_what_the_volume_shows_around_its_centre(patches, folder):
    brain = np.asarray(nibabel.load(folder / "ch2.nii.gz").dataobj)
    regions = np.asarray(nibabel.load(folder / "aal.nii.gz").dataobj)
    lobes = lobe_of_region((folder / "aal.nii.txt").read_text())
    half, where = SIDE // 2, places(patches)
    for row in range(0, len(where), 97):
        x, y, z = where[row]
        shown = patches.pixels[row, ..., 0]
        assert shown[half - 1, half] == brain[x, y, z]
        np.testing.assert_array_equal(shown, np.flipud(brain[x - half : x + half, y - half : y + half, z].T))
        assert patches.annotations.labels[row] == lobes[regions[x, y, z]]


def test_no_voxel_and_no_mirrored_one_is_in_two_blocks_or_parts(patches):
    where, known = places(patches), patches.annotations
    covered = np.zeros(SHAPE, np.uint8)
    for group in np.unique(known.groups):
        covered += voxels(where[known.groups == group])
    assert covered.max() == 1
    train, test = (voxels(where[known.parts == part]) for part in ("train", "test"))
    assert not (train & test).any()


def test_between_parts_there_is_a_gap(patches):
    where, known = places(patches), patches.annotations
    train, test = (voxels(where[known.parts == part]).any(axis=0) for part in ("train", "test"))
    for axis in (0, 1):
        for shift in range(1, GAP + 1):
            assert not (train & np.roll(test, shift, axis)).any()
            assert not (test & np.roll(train, shift, axis)).any()
    centres = {part: where[known.parts == part] for part in ("train", "test")}
    for one in np.unique(centres["train"][:, 2]):
        beside = centres["test"][np.abs(centres["test"][:, 2] - one) <= GAP]
        here = centres["train"][centres["train"][:, 2] == one]
        if len(beside):
            assert np.abs(here[:, None, 1] - beside[None, :, 1]).min() >= SIDE + GAP


def test_blocks_stand_in_one_part_each(patches):
    where, known = places(patches), patches.annotations
    assert len(known.group_names) == len(np.unique(known.groups))
    for group in np.unique(known.groups):
        assert len(set(known.parts[known.groups == group])) == 1
        spread = np.ptp(where[known.groups == group], axis=0)
        assert spread[1] < BLOCK[0] - SIDE
        assert spread[2] < BLOCK[1] - GAP


def test_patches_are_the_same_each_time(patches, folder):
    again = brain_patches(folder)
    assert again.names == patches.names
    np.testing.assert_array_equal(again.pixels, patches.pixels)
    np.testing.assert_array_equal(again.annotations.parts, patches.annotations.parts)
    assert len(set(patches.names)) == len(patches.names)
    assert patches.pixels.shape[1:] == (SIDE, SIDE, 1)


def test_the_sample_says_that_it_is_one_brain_and_is_kept_apart_from_its_volume():
    sample = SAMPLES["brain-patches"]
    assert "within one brain" in sample.title
    assert "Within one brain" in sample.caveat
    with pytest.raises(InputError, match="the brain of Colin27"):
        check_apart("sample:brain-patches", "sample:colin27")


@pytest.mark.network
def test_the_real_patches_show_every_lobe_on_both_sides():
    import kontrast.data as data

    opened = data.open("sample:brain-patches")
    assert len(opened) == find("brain-patches").count
    for part, expected in (
        ("train", {"frontal": 1244, "parietal": 702, "temporal": 821, "occipital": 409, "limbic": 425, "central": 116,
                   "cerebellum": 540}),
        ("test", {"frontal": 705, "parietal": 293, "temporal": 287, "occipital": 251, "limbic": 139, "central": 97,
                  "cerebellum": 256}),
    ):  # fmt: skip
        counts = np.bincount(opened.labels[opened.parts == part], minlength=7)
        assert dict(zip(opened.classes, counts.tolist(), strict=True)) == expected
    assert len(np.unique(opened.groups)) == 25
