import numpy as np
import pytest
import torch


def test_a_subset_of_a_subset_yields_the_images_of_the_whole(image_set):
    whole = image_set(np.arange(10), groups=np.arange(10) * 7, parts=[f"p{i}" for i in range(10)])
    part = whole.take(np.array([9, 2, 5, 7])).take(np.array([2, 0]))
    batch = part.batch(np.array([1, 0]))
    assert batch.image.flatten().tolist() == [9, 5]
    assert batch.label.tolist() == [9, 5]
    assert batch.index.tolist() == [9, 5]
    assert part.names == ("image/5", "image/9")
    assert part.groups.tolist() == [35, 63]
    assert part.parts.tolist() == ["p5", "p9"]


@pytest.mark.parametrize(
    ("stored", "tensor"), [("uint8", torch.uint8), ("uint16", torch.uint16), ("float32", torch.float32)]
)
def test_a_batch_keeps_the_type_that_is_stored(image_set, stored, tensor):
    assert image_set(pixels=np.zeros((3, 1, 2, 2), stored)).batch(np.array([0, 2])).image.dtype == tensor


def test_writing_into_a_batch_leaves_the_data_as_they_are(image_set):
    data = image_set([0, 1])
    data.batch(np.array([1])).image.zero_()
    assert data.pixels[1, 0, 0, 0] == 1


def test_multilabel_batches_are_float_with_nan_for_unknown(image_set):
    data = image_set(np.array([[0.0, np.nan], [1.0, 0.0]]))
    label = data.batch(np.array([0])).label
    assert data.is_multilabel
    assert label.dtype == torch.float32
    assert label[0, 0] == 0
    assert label[0, 1].isnan()


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255), ("uint16", 65535)])
def test_mean_and_std_equal_those_of_all_pixels_scaled_to_one(image_set, dtype, top):
    pixels = np.random.default_rng(0).integers(0, top + 1, (300, 3, 5, 5)).astype(dtype)
    mean, std = image_set(pixels=pixels).mean_std()
    scaled = pixels.astype(np.float64) / top
    np.testing.assert_allclose(mean, scaled.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std((0, 2, 3)), rtol=1e-9)


def test_statistics_of_many_images_come_from_2000_evenly_spaced_ones(image_set):
    pixels = np.random.default_rng(0).integers(0, 256, (5000, 1, 1, 1), dtype=np.uint8)
    chosen = pixels[np.linspace(0, 4999, 2000).round().astype(int)] / 255
    assert image_set(pixels=pixels).mean_std()[0] == pytest.approx((chosen.mean(),))


def test_labels_of_another_number_are_refused(image_set):
    with pytest.raises(ValueError, match="2 labels for 3 images"):
        image_set([0, 1, 1]).with_labels(np.array([0, 1]), ("a", "b"))


def test_texts_follow_their_images_and_a_batch_has_the_first_of_each(image_set):
    whole = image_set(np.arange(5)).with_texts([(f"text {row}", f"more {row}") for row in range(5)])
    part = whole.take(np.array([4, 0, 2])).take(np.array([2, 0]))
    assert part.texts == (("text 2", "more 2"), ("text 4", "more 4"))
    assert part.batch(np.array([1, 0])).text == ("text 4", "text 2")
    assert image_set(np.arange(5)).batch(np.array([1])).text is None
    assert part.with_texts(None).texts is None


@pytest.mark.parametrize("texts", [["a", "b"], [("a",), ()], [("a",), ("b", "")], [("a",)]])
def test_texts_that_are_not_one_or_more_an_image_are_refused(image_set, texts):
    with pytest.raises(ValueError, match="every image has"):
        image_set([0, 1]).with_texts(texts)
