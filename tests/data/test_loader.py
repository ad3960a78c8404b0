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
