import pytest

from kontrast.data import Loader


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
