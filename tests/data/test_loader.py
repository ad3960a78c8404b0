import threading
import time

import numpy as np
import pytest
import torch

from kontrast.data import Loader, loader
from kontrast.data.loader import Resident, ahead


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("kontrast-loader")]


def seen(loader, epoch):
    return [batch.index.tolist() for batch in loader.epoch(epoch)]


def test_an_epoch_yields_every_image_at_most_once_and_as_many_batches_as_it_says(image_set):
    loader = Loader(image_set(range(10)), 3)
    batches = seen(loader, 0)
    assert [len(batch) for batch in batches] == [3, 3, 3]
    assert len(loader) == 3
    assert len({index for batch in batches for index in batch}) == 9


def test_the_last_short_batch_is_kept_on_request(image_set):
    loader = Loader(image_set(range(10)), 3, drop_last=False)
    batches = seen(loader, 0)
    assert [len(batch) for batch in batches] == [3, 3, 3, 1]
    assert len(loader) == 4
    assert sorted(index for batch in batches for index in batch) == list(range(10))


def test_the_order_of_an_epoch_depends_on_seed_and_number_alone(image_set):
    data = image_set(range(50))
    one = Loader(data, 10, seed=3)
    for epoch in range(4):
        seen(one, epoch)
    assert seen(one, 4) == seen(Loader(data, 10, seed=3), 4)
    assert seen(one, 4) != seen(one, 5)
    assert seen(one, 4) != seen(Loader(data, 10, seed=4), 4)


@pytest.mark.parametrize("drop_last", [True, False])
def test_a_batch_larger_than_the_data_is_one_batch_of_all(image_set, drop_last):
    loader = Loader(image_set(range(5)), 64, drop_last=drop_last)
    assert len(loader) == 1
    assert [sorted(batch) for batch in seen(loader, 0)] == [[0, 1, 2, 3, 4]]


def test_an_empty_set_has_no_loader(image_set):
    with pytest.raises(ValueError, match="got 0"):
        Loader(image_set([0, 1]).take([]), 4)


@pytest.mark.parametrize("stored", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("way", ["kept on the device", "read ahead", "gathered when asked for"])
def test_however_images_reach_the_device_they_are_those_of_the_rows_in_order(way, stored, image_set, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 2**8 if stored == "uint8" else 2**16, (40, 1, 3, 3)).astype(stored)
    data = image_set(np.arange(40) % 7, pixels=pixels).take(np.arange(39, 9, -1))
    if way == "read ahead":
        monkeypatch.setattr(loader, "STREAM_FROM", 0)
    if way == "kept on the device":
        monkeypatch.setattr(loader, "choose_source", Resident)
        monkeypatch.setattr(loader, "_BLOCK", 7)
    batches = list(Loader(data, 4, seed=5, drop_last=False).epoch(2))
    order = np.random.default_rng([5, 2]).permutation(30)
    assert [len(batch) for batch in batches] == [4] * 7 + [2]
    for number, batch in enumerate(batches):
        rows = [39 - position for position in order[4 * number : 4 * number + 4]]
        assert batch.index.tolist() == rows
        assert batch.label.tolist() == [row % 7 for row in rows]
        assert batch.image.dtype == getattr(torch, stored)
        np.testing.assert_array_equal(batch.image.numpy(), np.stack([pixels[row] for row in rows]))


def test_results_come_in_order_although_later_ones_are_ready_first():
    def work(item):
        time.sleep(0.02 if item % 2 == 0 else 0)
        return item * item

    assert list(ahead(work, range(9))) == [item * item for item in range(9)]


def test_no_more_is_read_ahead_than_a_few_batches():
    begun = []
    results = ahead(begun.append, range(100))
    next(results)
    time.sleep(0.05)
    assert len(begun) <= 5
    results.close()


def test_an_exception_in_the_background_reaches_the_caller_at_its_batch_and_ends_the_threads():
    def work(item):
        if item == 2:
            raise OSError("the disk is gone")
        return item

    results = ahead(work, range(9))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(results)
    assert reading_threads() == []


def test_an_abandoned_epoch_leaves_no_thread(image_set, monkeypatch):
    monkeypatch.setattr(loader, "STREAM_FROM", 0)
    for _ in Loader(image_set(range(50)), 2).epoch(0):
        assert reading_threads()
        break
    assert reading_threads() == []


def test_an_interrupt_in_the_midst_of_an_epoch_leaves_no_thread(image_set, monkeypatch):
    monkeypatch.setattr(loader, "STREAM_FROM", 0)
    batches = Loader(image_set(range(50)), 2).epoch(0)

    def train():
        for batch in batches:
            raise KeyboardInterrupt(len(batch))

    with pytest.raises(KeyboardInterrupt):
        train()
    batches.close()
    assert reading_threads() == []


def known(count, of, *, seed=0):
    """Labels of so many images, at places without order; the others have none."""
    labels = np.full(of, -1)
    labels[np.random.default_rng(seed).permutation(of)[:count]] = np.arange(count) % 3
    return labels


def labelled_of(batches, labels):
    return [sum(labels[index] >= 0 for index in batch) for batch in batches]


@pytest.mark.parametrize(
    ("count", "of", "size", "share", "expected"),
    [
        (8, 80, 16, 0.25, 4),  # more than the 10 % of the data
        (8, 80, 16, 0.26, 5),  # at least the share, so rounded up
        (40, 80, 16, 0.125, 8),  # half of the data are labelled, which is more
        (3, 80, 16, 0.5, 3),  # there are no more
        (1, 80, 16, 0.125, 1),
        (0, 80, 16, 0.5, 0),
        (80, 80, 16, 0.125, 16),
        (70, 80, 16, 0.1, 14),
        (8, 80, 16, 1.0, 8),
        (2, 10, 64, 0.5, 2),  # one batch of all
        (32, 36, 18, 0.01, 16),
    ],
)
@pytest.mark.parametrize("drop_last", [True, False])
def test_every_batch_has_the_same_number_of_labelled_images_and_none_twice(
    count, of, size, share, expected, drop_last, image_set
):
    labels = known(count, of)
    loader = Loader(image_set(labels), size, labelled_share=share, drop_last=drop_last)
    for epoch in range(3):
        batches = seen(loader, epoch)
        assert len(batches) == len(loader)
        assert [len(batch) for batch in batches] == [min(size, of)] * len(loader)
        assert [len(set(batch)) for batch in batches] == [min(size, of)] * len(loader)
        assert labelled_of(batches, labels) == [expected] * len(loader)


@pytest.mark.parametrize(("count", "of", "size"), [(34, 100, 10), (66, 100, 10), (5, 99, 7)])
def test_labelled_images_are_never_rarer_than_in_the_data(count, of, size, image_set):
    labels = known(count, of)
    for number in labelled_of(seen(Loader(image_set(labels), size, labelled_share=0.001), 0), labels):
        assert number >= size * count / of


@pytest.mark.parametrize(("count", "share"), [(4, 0.5), (20, 0.125), (60, 0.125), (90, 0.3), (1, 0.125)])
def test_over_a_few_epochs_every_image_is_reached(count, share, image_set):
    labels = known(count, 100)
    loader, reached = Loader(image_set(labels), 10, labelled_share=share), set()
    for epoch in range(12):
        reached |= {index for batch in seen(loader, epoch) for index in batch}
    assert reached == set(range(100))


def test_where_the_share_is_that_of_the_data_an_epoch_has_every_image_once(image_set):
    batches = seen(Loader(image_set(known(20, 100)), 10, labelled_share=0.2), 0)
    assert sorted(index for batch in batches for index in batch) == list(range(100))


def test_labelled_images_that_come_more_often_come_equally_often(image_set):
    """Eight labelled images, four a batch, ten batches: each five times in an epoch, no image twice in a batch."""
    labels = known(8, 160)
    times = np.zeros(160, dtype=int)
    for batch in seen(Loader(image_set(labels), 16, labelled_share=0.25), 0):
        times[batch] += 1
    assert times[labels >= 0].tolist() == [5] * 8
    assert times[labels < 0].max() == 1
    assert times.sum() == 160


def test_which_labelled_images_meet_depends_on_seed_and_epoch_alone(image_set):
    data = image_set(known(12, 60))
    one = Loader(data, 10, seed=3, labelled_share=0.3)
    for epoch in range(4):
        seen(one, epoch)
    assert seen(one, 4) == seen(Loader(data, 10, seed=3, labelled_share=0.3), 4)
    assert seen(one, 4) != seen(one, 5)
    assert seen(one, 4) != seen(Loader(data, 10, seed=4, labelled_share=0.3), 4)


def test_without_a_share_the_order_is_what_it_ever_was(image_set):
    """The permutation of the epoch, labels or not."""
    labels = known(12, 60)
    expected = np.random.default_rng([3, 2]).permutation(60).reshape(6, 10).tolist()
    assert seen(Loader(image_set(labels), 10, seed=3), 2) == expected
    assert seen(Loader(image_set(labels), 10, seed=3, labelled_share=0.3), 2) != expected


def test_of_multi_label_data_those_known_for_any_class_count_as_labelled(image_set):
    labels = np.full((40, 3), np.nan)
    labels[[3, 17, 21, 30], [0, 1, 2, 0]] = [0, 1, 0, 1]
    batches = seen(Loader(image_set(labels), 10, labelled_share=0.2), 0)
    assert [len({3, 17, 21, 30} & set(batch)) for batch in batches] == [2, 2, 2, 2]


def test_data_without_labels_are_loaded_all_the_same(image_set):
    batches = seen(Loader(image_set(None, groups=np.arange(30)), 10, labelled_share=0.5), 1)
    assert sorted(index for batch in batches for index in batch) == list(range(30))


def test_a_subset_counts_its_own_labels_and_names_the_rows_of_the_whole(image_set):
    labels = known(30, 60)
    chosen = np.flatnonzero(labels >= 0)[:4].tolist() + np.flatnonzero(labels < 0)[:16].tolist()
    batches = seen(Loader(image_set(labels).take(np.array(chosen)), 5, labelled_share=0.4), 0)
    assert labelled_of(batches, labels) == [2, 2, 2, 2]
    assert {index for batch in batches for index in batch} <= set(chosen)


@pytest.mark.parametrize("way", ["read ahead", "kept on the device"])
def test_labels_stay_with_their_images_however_they_reach_the_device(way, image_set, monkeypatch):
    labels = known(9, 50)
    if way == "read ahead":
        monkeypatch.setattr(loader, "STREAM_FROM", 0)
    else:
        monkeypatch.setattr(loader, "choose_source", Resident)
    data = image_set(labels, pixels=np.arange(50, dtype=np.uint8).reshape(-1, 1, 1, 1))
    for batch in Loader(data, 10, labelled_share=0.3).epoch(0):
        assert batch.label.tolist() == labels[batch.index].tolist()
        assert batch.image.flatten().tolist() == batch.index.tolist()
    assert reading_threads() == []


@pytest.mark.parametrize("size", [2, 3, 8])
def test_a_small_batch_has_two_labelled_images_where_labels_are_few(size, image_set):
    labels = known(4, 40)
    batches = seen(Loader(image_set(labels), size, labelled_share=0.125), 0)
    assert set(labelled_of(batches, labels)) == {2}


@pytest.fixture
def told(image_set):
    """30 images with one to three texts each, a subset in another order."""
    texts = tuple(tuple(f"{row}/{number}" for number in range(1 + row % 3)) for row in range(40))
    return image_set(np.arange(40) % 7).with_texts(texts).take(np.arange(39, 9, -1))


def spoken(loader, epoch):
    """The text of each image, by its row."""
    pairs = [zip(batch.index.tolist(), batch.text, strict=True) for batch in loader.epoch(epoch)]
    return {row: text for batch in pairs for row, text in batch}


@pytest.mark.parametrize("labelled_share", [0.0, 0.5])
@pytest.mark.parametrize("way", ["kept on the device", "read ahead", "gathered when asked for"])
def test_every_image_comes_with_one_of_its_own_texts_however_it_reaches_the_device(
    told, way, labelled_share, monkeypatch
):
    if way == "read ahead":
        monkeypatch.setattr(loader, "STREAM_FROM", 0)
    if way == "kept on the device":
        monkeypatch.setattr(loader, "choose_source", Resident)
    one = Loader(told, 4, seed=1, drop_last=False, labelled_share=labelled_share)
    for batch in one.epoch(0):
        assert len(batch.text) == len(batch)
        for row, text in zip(batch.index.tolist(), batch.text, strict=True):
            assert text in [f"{row}/{number}" for number in range(1 + row % 3)]
    assert reading_threads() == []


def test_texts_depend_on_seed_epoch_and_image_alone(told):
    one = Loader(told, 4, seed=1)
    for epoch in range(3):
        spoken(one, epoch)
    assert spoken(one, 3) == spoken(Loader(told, 4, seed=1), 3)
    many, few = (spoken(Loader(told, size, seed=1, drop_last=False), 3) for size in (30, 7))
    assert many == few
    assert spoken(Loader(told, 4, seed=2, drop_last=False), 3) != many
    assert spoken(Loader(told, 4, seed=1, drop_last=False), 4) != many


def test_all_texts_of_an_image_come_equally_often_over_the_epochs(told):
    drawn = [spoken(Loader(told, 30, seed=0), epoch)[11] for epoch in range(600)]
    counts = [drawn.count(f"11/{number}") for number in range(3)]
    assert sum(counts) == 600
    assert all(abs(count - 200) < 4 * (600 * 2 / 9) ** 0.5 for count in counts)


def test_texts_change_nothing_in_the_order_of_images(told):
    assert seen(Loader(told, 4, seed=5), 2) == seen(Loader(told.with_texts(None), 4, seed=5), 2)


def test_an_abandoned_epoch_of_pairs_leaves_no_thread(told, monkeypatch):
    monkeypatch.setattr(loader, "STREAM_FROM", 0)
    for _ in Loader(told, 2).epoch(0):
        assert reading_threads()
        break
    assert reading_threads() == []
