"""What the audit finds in planted sets, and that it finds nothing in clean ones."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from kontrast import data
from kontrast.data import hold_out
from kontrast.data.audit import findings as audit
from kontrast.data.audit import values
from kontrast.data.audit.leaks import Leaks, find_copies, leaks
from kontrast.data.images import Facts
from kontrast.data.reading import Header


@pytest.fixture(scope="module")
def few(digits):
    """200 different digits, every fifth for testing."""
    chosen = digits.take(np.arange(0, 5000, 25))
    return replace(chosen, parts=np.where(np.arange(200) % 5 == 0, "test", "train"))


def with_copies(few, of, **known):
    """The images, and copies of some at the end."""
    found = few.take(np.concatenate([np.arange(len(few)), of]))
    names = (*few.names, *(f"copy/{at}" for at in of))
    return replace(found, names=names, **known)


def kinds(found):
    return [each.kind for each in found]


def test_a_clean_set_has_no_finding(few):
    copies = find_copies(few)
    assert list(audit.copied(few, few.parts, copies)) == []
    assert audit.cut_groups(few, few.parts) is None
    assert audit.conflicts(few, few.parts, copies.exact) is None
    assert audit.constant(few, copies.looks) is None


def test_exact_copies_are_told_by_the_side_they_are_on(few):
    planted = with_copies(few, [0, 1], parts=np.append(few.parts, ["train", "train"]))
    across, within = audit.copied(planted, planted.parts, find_copies(planted))
    assert (across.kind, across.grade, across.items[0].positions) == ("exact-across", "leak", (0, 200))
    assert across.items[0].note == "1 test, 1 train"
    assert (within.kind, within.grade, within.items[0].positions) == ("exact-within", "problem", (1, 201))


def test_images_of_no_part_leak_nowhere(few):
    planted = with_copies(few, [0, 1], parts=np.append(few.parts, ["", ""]))
    assert kinds(audit.copied(planted, planted.parts, find_copies(planted))) == ["exact-within"]


def test_near_duplicates_within_a_group_are_counted_and_between_groups_found(few):
    pixels = np.concatenate([few.pixels[few.rows], few.pixels[few.rows[[1, 2]]]])
    pixels[200:] = np.minimum(255, pixels[200:].astype(int) + 9)
    planted = with_copies(few, [1, 2], pixels=pixels, rows=np.arange(202), parts=np.full(202, ""))
    planted = replace(planted, groups=np.append(np.arange(200), [1, 900]), group_names=())
    copies = find_copies(planted)
    (found,) = audit.copied(planted, planted.parts, copies)
    assert (found.kind, found.items[0].positions) == ("near-within", (2, 201))
    assert audit.within_groups(planted, copies) == 1


def test_the_same_pixels_under_two_labels_are_a_conflict(few):
    labels = np.append(few.labels, (few.labels[3] + 1) % 10)
    planted = with_copies(few, [3], labels=labels, parts=np.full(201, ""))
    found = audit.conflicts(planted, planted.parts, find_copies(planted).exact)
    assert found.items[0].positions == (3, 200)
    assert found.items[0].note == f"{few.classes[labels[3]]}, {few.classes[labels[200]]}"
    unlabelled = replace(planted, labels=np.append(few.labels, -1))
    assert audit.conflicts(unlabelled, planted.parts, find_copies(planted).exact) is None


def test_multi_label_conflicts_are_found(few):
    labels = np.zeros((201, 10))
    labels[200, 4] = 1
    planted = with_copies(few, [3], labels=labels, parts=np.full(201, ""))
    assert audit.conflicts(planted, planted.parts, find_copies(planted).exact).items[0].positions == (3, 200)


def test_constant_images_are_named_and_are_no_near_duplicates(few):
    pixels = few.pixels[few.rows].copy()
    pixels[5], pixels[6], pixels[7] = 0, 200, np.arange(784).reshape(28, 28) % 2
    planted = replace(few, pixels=pixels, rows=np.arange(200))
    copies = find_copies(planted)
    assert [item.positions for item in audit.constant(planted, copies.looks).items] == [(5,), (6,), (7,)]
    assert list(audit.copied(planted, planted.parts, copies)) == []


@pytest.mark.parametrize("seed", range(12))
def test_a_hold_out_by_group_never_leaks(few, seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 40, 200)
    planted = replace(few, groups=groups, parts=None, labels=np.where(rng.random(200) < 0.3, -1, few.labels % 2))
    train, test = hold_out(replace(planted, classes=("even", "odd")), seed=seed)
    found = leaks(planted.take(train), planted.take(test))
    assert found == Leaks(exact=0, near=0, groups=0)
    assert not found
    parts = np.full(200, "", dtype="<U5")
    parts[train], parts[test] = "train", "test"
    assert audit.cut_groups(planted, parts) is None
    parts[train[0]] = "test"
    if (groups[train] == groups[train[0]]).sum() > 1:
        assert audit.cut_groups(planted, parts).grade == "leak"


def test_leaks_between_two_sides_are_counted_and_said(few):
    near = few.pixels[few.rows[:3]].astype(int) + 9
    other = replace(few.take(np.arange(6)), rows=np.arange(6), fingerprint="other")
    other = replace(other, pixels=np.concatenate([np.minimum(near, 255).astype(np.uint8), few.pixels[few.rows[3:6]]]))
    found = leaks(few, other)
    assert (found.exact, found.near, found.groups) == (3, 3, 0)
    assert "3 are exact copies of training images and 3 more near-duplicates" in str(found)


@pytest.mark.network
@pytest.mark.slow
def test_every_digit_of_one_package_is_a_copy_of_one_of_the_other(digits):
    found = leaks(data.open("sample:mnist-10k"), digits)
    assert found.exact == 5000


@pytest.fixture
def letters():
    """Soft textures of 128 px without text, and the same with a line of white text."""

    def letters(count=20, *, text="NAME 12345 L"):
        rng = np.random.default_rng(1)
        pictures = []
        for _ in range(count):
            coarse = Image.fromarray(rng.integers(0, 200, (9, 9), np.uint8))
            picture = coarse.resize((128, 128), Image.Resampling.BICUBIC)
            if text:
                ImageDraw.Draw(picture).rectangle((0, 0, 128, 24), fill=0)
                ImageDraw.Draw(picture).text((8, 6), text, fill=255)
            pictures.append(np.asarray(picture))
        return np.stack(pictures)[:, None]

    return letters


def test_burnt_in_text_is_suspected_and_textures_are_not(letters, few):
    assert (values.text_lines(letters()) >= 1).mean() >= 0.9
    assert values.text_lines(letters(text="")).sum() == 0
    assert values.text_lines(few.pixels[:50]).sum() == 0, "too small for letters"


def test_twelve_bits_in_sixteen_and_eight_bits_in_sixteen_are_told(few):
    def depth(pixels):
        stored = replace(few, pixels=pixels, rows=np.arange(200))
        return values.depth(stored, values.values(stored))

    eight = few.pixels[few.rows]
    assert depth(eight) is None
    assert "as 12-bit data in 16-bit files do" in depth(eight.astype(np.uint16) * 16).sentence
    stretched = depth(eight.astype(np.uint16) * 257)
    assert (stretched.grade, "only 256 different values" in stretched.sentence) == ("note", True)
    noise = np.random.default_rng(0).integers(0, 65536, eight.shape, dtype=np.uint16)
    assert depth(noise) is None
    assert depth((eight / 255).astype(np.float32)) is None


def test_clipped_images_and_sizes_that_stand_out_are_named(few):
    clipped = few.pixels[few.rows].copy()
    clipped[4, :, :14] = 255
    marked = replace(few, pixels=clipped, rows=np.arange(200))
    assert values.clipped(marked, values.values(marked)).items[0].positions == (4,)
    headers = [Header(height=100, width=80 if at else 900, channels=1, bits=8, spacing=(0.5, 0.5)) for at in range(200)]
    known = replace(few, facts=Facts.of(headers))
    (found,) = values.outliers(known)
    assert (found.kind, found.items[0].positions, found.items[0].note) == ("sizes", (0,), "900 px")
    assert values.ranges(known, values.values(known))["Spacing"] == "0.5 mm, of 200 images"


def test_what_a_file_says_of_burnt_in_text_is_believed(few):
    header = Header(height=28, width=28, channels=1, bits=8)
    headers = [replace(header, has_burnt_in_text=at == 3) for at in range(len(few))]
    told = replace(few, facts=Facts.of(headers))
    found = values.text(told, values.values(told))
    assert [(item.positions, item.note) for item in found.items] == [((3,), "the file says so")]
    assert values.text(few, values.values(few)) is None


def test_an_exact_copy_among_the_neighbours_makes_no_pair_of_an_image_with_itself(few):
    planted = with_copies(few, [0])
    neighbours = np.full((201, 1), -1)
    neighbours[0], neighbours[200] = 200, 0
    found = find_copies(planted, also=neighbours).pairs
    assert (found.first != found.second).all()
