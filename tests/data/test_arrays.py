import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from kontrast.data.arrays import arranged, list_npz, read_dataset
from kontrast.errors import InputError


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


def npz(folder, **arrays):
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("shape", "channels"), [((4, 6, 6), 1), ((4, 6, 6, 3), 3), ((4, 6, 6, 1), 1), ((4, 3, 6, 6), 3)]
)
def test_every_layout_of_an_npz_is_understood(tmp_path, shape, channels):
    images = noise(*shape)
    pixels = arranged(list_npz(npz(tmp_path, images=images)), size=None, channels=None)
    expected = images.reshape(4, 1, 6, 6) if channels == 1 else images if shape[1] == 3 else np.moveaxis(images, 3, 1)
    np.testing.assert_array_equal(pixels, expected)


def test_medmnist_gives_split_names_and_classes(tmp_path):
    arrays = {}
    for part, count in (("train", 3), ("val", 2), ("test", 1)):
        arrays |= {f"{part}_images": noise(count, 5, 5), f"{part}_labels": np.full((count, 1), count)}
    listing = list_npz(npz(tmp_path, **arrays))
    assert listing.names == ("train/0", "train/1", "train/2", "val/0", "val/1", "test/0")
    assert listing.annotations.parts.tolist() == ["train"] * 3 + ["validation"] * 2 + ["test"]
    assert [listing.annotations.classes[code] for code in listing.annotations.labels] == ["3", "3", "3", "2", "2", "1"]


def test_medmnist_with_several_columns_is_multilabel(tmp_path):
    labels = np.array([[0, 1, 1], [1, 0, 0]])
    listing = list_npz(npz(tmp_path, train_images=noise(2, 5, 5), train_labels=labels))
    np.testing.assert_array_equal(listing.annotations.labels, labels)
    assert listing.annotations.classes == ("0", "1", "2")


def test_negative_labels_are_none_and_groups_are_kept(tmp_path):
    listing = list_npz(
        npz(tmp_path, images=noise(3, 5, 5), labels=np.array([7, -1, 3]), groups=np.array(["p", "q", "p"]))
    )
    assert listing.annotations.labels.tolist() == [1, -1, 0]
    assert listing.annotations.groups.tolist() == [0, 1, 0]


@pytest.mark.parametrize("shape", [(2, 9, 8, 5), (2, 5, 9, 8)])
def test_any_number_of_channels_is_kept_and_no_channel_is_lost(tmp_path, shape):
    images = noise(*shape)
    kept = arranged(list_npz(npz(tmp_path, images=images)), size=None, channels=None)
    assert kept.shape == (2, 5, 9, 9)
    wanted = images.transpose(0, 3, 1, 2) if shape[3] == 5 else images
    np.testing.assert_array_equal(kept[:, :, :, :8], wanted)
    with pytest.raises(InputError, match="has 5 where 3 are wanted"):
        arranged(list_npz(npz(tmp_path, images=images)), size=None, channels=3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": noise(2, 5, 5)}, "holds pictures"),
        ({"images": noise(2, 70, 70, 65)}, r"1 to 64 channels.*\(2, 70, 70, 65\)"),
        ({"images": noise(2, 5, 5).astype(np.int64)}, "has int64"),
        ({"images": noise(2, 5, 5).astype(np.float32)}, "lie in 0..1"),
        ({"images": np.full((2, 5, 5), np.nan)}, "lie in 0..1"),
        ({"images": noise(2, 5, 5), "labels": np.array([0, 1, 2])}, "3 labels or groups for 2 images"),
        ({"images": noise(2, 5, 5), "labels": np.array([0, np.nan])}, "nan at image 1"),
        ({"images": noise(2, 5, 5), "labels": np.array([[0, 2], [1, 1]])}, "0, 1 or NaN"),
        ({"images": np.array([None, {}])}, "plain arrays"),
        ({"train_images": noise(2, 5, 5), "test_images": noise(2, 6, 6)}, "one shape"),
    ],
)
def test_a_bad_npz_is_refused_in_a_sentence(tmp_path, arrays, message):
    with pytest.raises(InputError, match=message):
        list_npz(npz(tmp_path, **arrays))


def test_a_file_that_only_claims_to_be_npz_is_refused(tmp_path):
    (tmp_path / "data.npz").write_text("no")
    with pytest.raises(InputError, match="plain arrays"):
        list_npz(tmp_path / "data.npz")


def test_arrays_that_are_not_square_are_centred_on_black():
    pixels = arranged(read_dataset([np.full((4, 8), 9, np.uint8)], name="x"), size=None, channels=None)
    assert pixels.shape == (1, 1, 8, 8)
    assert (pixels[0, 0, 2:6] == 9).all()
    assert pixels.sum() == 9 * 32


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_large_arrays_are_scaled_to_the_margin_of_the_crop(dtype):
    image = np.full((3, 64, 64), 0.5 if dtype == "float32" else 77).astype(dtype)
    pixels = arranged(read_dataset([image], name="x"), size=28, channels=None)
    assert pixels.shape == (1, 3, 32, 32)
    assert pixels.dtype == dtype
    np.testing.assert_allclose(pixels, image[0, 0, 0], rtol=1e-6)


def test_a_torch_dataset_of_pairs_gives_images_and_labels():
    images = torch.rand(5, 3, 4, 4)
    listing = read_dataset(TensorDataset(images, torch.tensor([2, 0, -1, 10, 2])), name="x")
    np.testing.assert_array_equal(listing.pixels, images.permute(0, 2, 3, 1))
    assert listing.annotations.classes == ("0", "2", "10")
    assert listing.annotations.labels.tolist() == [1, 0, -1, 2, 1]


def test_a_dataset_that_never_raises_index_error_is_read_to_its_length():
    class Endless(Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, position):
            return torch.zeros(1, 2, 2, dtype=torch.uint8)

    assert len(read_dataset(Endless(), name="x").pixels) == 3


def test_an_iterable_dataset_is_read_to_its_end():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([(torch.zeros(2, 2), "cat"), (torch.ones(2, 2), None)])

    listing = read_dataset(Stream(), name="x")
    assert listing.annotations.classes == ("cat",)
    assert listing.annotations.labels.tolist() == [0, -1]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([torch.zeros(1, 2, 2), torch.zeros(1, 3, 3)], "one shape"),
        ([torch.full((1, 2, 2), 255.0)], "lie in 0..1; x has 255 to 255"),
        (["a.png"], "is str .*PILToTensor"),
        ([torch.zeros(65, 2, 2)], "1 to 64 channels"),
        ([], "yielded none"),
        ([(torch.zeros(2, 2), float("nan")), (torch.zeros(2, 2), 1.0)], "nan at image 0"),
    ],
)
def test_a_bad_data_set_is_refused_in_a_sentence(items, message):
    with pytest.raises(InputError, match=message):
        read_dataset(items, name="x")
