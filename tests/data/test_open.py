import numpy as np
import pytest
import torch
from PIL import Image

import kontrast.data as data
from kontrast.errors import InputError


def test_images_of_many_sizes_become_squares_of_one(tmp_path, save):
    shapes = {"a": (40, 20), "b": (28, 28), "c": (10, 30), "d": (100, 100)}
    for name, shape in shapes.items():
        save(tmp_path / f"{name}.png", np.full(shape, 255, np.uint8))
    opened = data.open(tmp_path, size=28)
    assert opened.size == 32
    assert opened.pixels.dtype == np.uint8
    lit = [(int(image[0].any(1).sum()), int(image[0].any(0).sum())) for image in opened.pixels]
    assert lit == [(32, 16), (28, 28), (10, 30), (32, 32)]


def test_the_side_is_never_larger_than_the_largest_image(tmp_path, save):
    save(tmp_path / "a.png", np.zeros((12, 20), np.uint8))
    assert data.open(tmp_path).size == 20


@pytest.mark.parametrize(("side", "size", "expected"), [(32, 28, 32), (33, 28, 32), (256, None, 256), (300, None, 256)])
def test_squares_stay_untouched_up_to_the_margin(tmp_path, save, side, size, expected):
    path = save(tmp_path / "a.png", 0, side=side)
    opened = data.open(tmp_path, size=size)
    assert opened.size == expected
    if side == expected:
        np.testing.assert_array_equal(opened.pixels[0, 0], np.asarray(Image.open(path)))


@pytest.mark.parametrize("as_array", [True, False])
def test_an_image_smaller_than_the_crop_is_refused(tmp_path, save, as_array):
    save(tmp_path / "large.png", side=40)
    save(tmp_path / "small.png", side=20)
    source = torch.zeros(3, 20, 20) if as_array else tmp_path
    with pytest.raises(InputError, match=r"20 px and the crop 28 px.*--size 20"):
        data.open(source, size=28)


def test_a_single_picture_is_opened_as_the_folder_that_holds_it_alone(tmp_path, save):
    path = save(tmp_path / "images/a.png", side=12)
    alone, folder = data.open(path), data.open(tmp_path / "images")
    assert alone.names == folder.names == ("a.png",)
    np.testing.assert_array_equal(alone.pixels, folder.pixels)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match=r"a picture, a DICOM file, .* got .*notes\.txt"):
        data.open(tmp_path / "notes.txt")
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"1 of 1 are \(b\.png"):
        data.open(tmp_path / "b.png")


def test_grey_images_have_one_channel_and_a_single_coloured_one_makes_it_three(tmp_path, save):
    save(tmp_path / "a.png")
    assert data.open(tmp_path).channels == 1
    save(tmp_path / "b.png", np.zeros((8, 8, 3), np.uint8))
    assert data.open(tmp_path).channels == 3
    assert data.open(tmp_path, channels=1).channels == 1


def test_a_mixture_of_depths_is_stored_as_16_bit(tmp_path, save):
    save(tmp_path / "a.png", np.full((4, 4), 255, np.uint8))
    save(tmp_path / "b.png", np.full((4, 4), 1234, np.uint16))
    pixels = data.open(tmp_path).pixels
    assert pixels.dtype == np.uint16
    assert pixels[:, 0, 0, 0].tolist() == [65535, 1234]


def test_a_wrong_number_of_channels_is_refused(tmp_path, save):
    save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png has 1 where 4 are wanted"):
        data.open(tmp_path, channels=4)
    with pytest.raises(InputError, match="got 0"):
        data.open(tmp_path, channels=0)


def test_hostile_names_arrive_as_they_are(tmp_path, save):
    names = ["<img src=x onerror=alert(1)>.png", "a'\"; rm -rf.png", "ü 漢\n.png"]
    for number, name in enumerate(names):
        save(tmp_path / name, number)
    assert set(data.open(tmp_path).names) == set(names)


def test_names_that_are_not_unicode_do_no_harm(tmp_path, save):
    save(tmp_path / "a.png").rename(tmp_path / b"\xff.png".decode("utf-8", "surrogateescape"))
    assert len(data.open(tmp_path)) == len(data.open(tmp_path)) == 1


def test_a_folder_a_table_and_an_npz_of_the_same_images_hold_the_same(tmp_path, save):
    for number in range(4):
        save(tmp_path / "images" / str(number % 2) / f"{number}.png", number)
    folder = data.open(tmp_path / "images")
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(f"images/{n},{n[0]}\n" for n in folder.names))
    np.savez(tmp_path / "a.npz", images=folder.pixels[:, 0], labels=folder.labels)
    for path in (tmp_path / "t.csv", tmp_path / "a.npz"):
        other = data.open(str(path))
        np.testing.assert_array_equal(other.pixels, folder.pixels)
        np.testing.assert_array_equal(other.labels, folder.labels)
        assert other.classes == folder.classes


def test_labels_of_a_table_go_to_the_images_of_a_folder(tmp_path, save):
    for name in "abc":
        save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "labels.csv").write_text("path,label,group\nc.png,x,p\nimages/a.png,y,p\n")
    opened = data.open(tmp_path / "images", labels=tmp_path / "labels.csv")
    assert opened.labels.tolist() == [1, -1, 0]
    assert opened.groups[0] == opened.groups[2] != opened.groups[1]


def test_a_table_of_labels_beside_something_other_than_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="goes with a folder"):
        data.open(torch.zeros(2, 4, 4), labels=tmp_path / "labels.csv")


def test_an_image_set_is_returned_as_it_is(image_set):
    given = image_set([0, 1])
    assert data.open(given) is given


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{tmp}/nowhere", "there is no folder"),
        ("{tmp}/notes.txt", "is a table .*.csv .*notes.txt"),
        ("sample:digits-5", "did you mean digits-5k"),
        ("digits-5k", "write sample:digits-5k"),
        (3.5, "got float"),
    ],
)
def test_a_source_that_is_none_is_refused_in_a_sentence(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=message):
        data.open(source.format(tmp=tmp_path) if isinstance(source, str) else source)


def test_the_public_names_are_sorted_and_there():
    assert data.__all__ == sorted(data.__all__)
    assert all(hasattr(data, name) for name in data.__all__)
