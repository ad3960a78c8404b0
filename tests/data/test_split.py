from dataclasses import replace

import numpy as np
import pytest

from kontrast.data import draw, hold_out, validation_part
from kontrast.errors import InputError


def labels_of(*counts):
    """Shuffled labels with so many of each class."""
    return np.random.default_rng(9).permutation(np.repeat(np.arange(len(counts)), counts))


def test_a_hold_out_takes_its_share_of_every_class(image_set):
    labels = labels_of(100, 50, 10)
    train, test = hold_out(image_set(labels), share=0.2)
    assert np.bincount(labels[test]).tolist() == [20, 10, 2]
    assert sorted([*train, *test]) == list(range(160))


def test_hold_outs_differ_by_seed_and_repeat_with_it(image_set):
    data = image_set(labels_of(50, 50))
    tests = [tuple(hold_out(data, seed=seed)[1]) for seed in (0, 0, 1)]
    assert tests[0] == tests[1] != tests[2]


def test_a_rare_class_is_on_both_sides(image_set):
    labels = labels_of(200, 2)
    train, test = hold_out(image_set(labels), share=0.1)
    assert 1 in labels[train]
    assert 1 in labels[test]


def test_unlabelled_images_train_and_never_test(image_set):
    labels = np.concatenate([labels_of(10, 10), np.full(30, -1)])
    train, test = hold_out(image_set(labels))
    assert (labels[test] >= 0).all()
    assert set(range(20, 50)) <= set(train)


@pytest.mark.parametrize("seed", range(20))
def test_no_group_is_ever_on_both_sides_and_every_class_is(image_set, seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 40, 400)
    labels = (rng.integers(0, 8, 40) // 3)[groups]
    labels[rng.random(400) < 0.3] = -1
    data = image_set(labels, groups=groups, classes=("a", "b", "c"))
    train, test = hold_out(data, share=0.25, seed=seed)
    assert not set(groups[train]) & set(groups[test])
    present = set(labels[labels >= 0])
    assert set(labels[test]) == present
    assert set(labels[train]) - {-1} == present
    assert 0.15 < len(test) / (labels >= 0).sum() < 0.35
    unlabelled_mates = [i for i in np.flatnonzero(labels < 0) if groups[i] in set(groups[test])]
    assert not set(unlabelled_mates) & {*train, *test}
    assert len(train) + len(test) + len(unlabelled_mates) == 400


def test_groups_are_held_out_in_proportion_to_their_class(image_set):
    groups = np.repeat(np.arange(300), 4)
    labels = np.repeat(labels_of(200, 100), 4)
    _, test = hold_out(image_set(labels, groups=groups), share=0.2)
    assert np.abs(np.bincount(labels[test]) - [160, 80]).max() <= 4


def test_a_given_split_is_kept_and_validation_trains(image_set):
    parts = ["train", "validation", "test", "", "test", "train"]
    train, test = hold_out(image_set([0, 1, 0, 1, 1, 0], parts=parts))
    assert train.tolist() == [0, 1, 3, 5]
    assert test.tolist() == [2, 4]


def test_validation_tests_where_there_is_no_test(image_set):
    assert hold_out(image_set([0, 1, 0], parts=["train", "train", "validation"]))[1].tolist() == [2]


def test_unlabelled_images_of_a_given_test_part_are_on_neither_side(image_set):
    train, test = hold_out(image_set([0, 1, -1, 1], parts=["train", "train", "test", "test"]))
    assert (train.tolist(), test.tolist()) == ([0, 1], [3])


def test_a_given_split_works_without_labels(image_set):
    train, test = hold_out(image_set(parts=["train", "test", "train"]))
    assert (train.tolist(), test.tolist()) == ([0, 2], [1])


def test_a_given_split_that_cuts_a_group_is_refused_with_both_images(image_set):
    data = image_set([0, 1, 0, 1], groups=[5, 6, 7, 6], parts=["train", "train", "test", "test"])
    with pytest.raises(InputError, match="image/1 trains and image/3"):
        hold_out(data)


def test_images_with_texts_and_no_labels_are_held_out_by_group_where_there_are_groups(image_set):
    bare = replace(image_set(labels_of(50, 50)), labels=None, classes=())
    told = bare.with_texts([[f"text {i}"] for i in range(100)])
    train, test = hold_out(told)
    assert (len(train), len(test)) == (80, 20)
    grouped = replace(told, groups=np.arange(100) // 4)
    train, test = hold_out(grouped)
    assert not set(grouped.groups[train]) & set(grouped.groups[test])
    assert len(test) == 20
    with pytest.raises(InputError, match="needs labels or texts"):
        hold_out(bare)


def test_one_group_with_texts_cannot_be_split(image_set):
    bare = replace(image_set(labels_of(2, 2)), labels=None, classes=(), groups=np.zeros(4, dtype=np.int64))
    with pytest.raises(InputError, match="needs two groups"):
        hold_out(bare.with_texts([["a"], ["b"], ["c"], ["d"]]))


def test_multilabel_data_are_held_out_at_random_and_by_group(image_set):
    labels = np.random.default_rng(0).integers(0, 2, (100, 3)).astype(float)
    groups = np.arange(100) // 5
    train, test = hold_out(image_set(labels, groups=groups))
    assert len(test) == 20
    assert not set(groups[train]) & set(groups[test])
    assert len(hold_out(image_set(labels))[1]) == 20


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        ([0, 0, 0], None, "all of made are 'class 0'"),
        ([-1, -1], None, "made has none"),
        (None, [1, 2, 3], "made has none"),
        ([0, 0, 0, 1], None, "class 'class 1' of made has 1"),
        ([0, 0, 1, 1, 1], [0, 1, 2, 2, 2], "two labelled groups .* class 'class 1' of made has 1"),
    ],
)
def test_data_that_cannot_be_split_are_refused_in_a_sentence(image_set, labels, groups, message):
    with pytest.raises(InputError, match=message):
        hold_out(image_set(labels, groups=groups))


def test_one_percent_of_4000_digits_is_4_of_each():
    labels = np.tile(np.arange(10), 400)
    assert np.bincount(labels[draw(labels, fraction=0.01, seed=0)]).tolist() == [4] * 10


def test_a_draw_is_in_proportion_by_largest_remainders():
    labels = labels_of(54, 33, 13)
    assert np.bincount(labels[draw(labels, fraction=0.1, seed=0)]).tolist() == [6, 3, 1]
    assert np.bincount(labels[draw(labels, fraction=0.2, seed=0)]).tolist() == [11, 6, 3]


def test_a_draw_has_at_least_one_of_each_class():
    labels = labels_of(990, 5, 5)
    assert np.bincount(labels[draw(labels, fraction=0.01, seed=0)]).tolist() == [8, 1, 1]


def test_draws_skip_unlabelled_images_and_the_whole_fraction_is_all_labels():
    labels = np.array([-1, 0, 1, -1, 1, 0])
    assert draw(labels, fraction=1, seed=0).tolist() == [1, 2, 4, 5]


def test_draws_differ_by_seed_and_repeat_with_it():
    labels = labels_of(100, 100)
    draws = [tuple(draw(labels, fraction=0.1, seed=seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_every_labelled_image_is_equally_likely_to_be_drawn():
    labels = labels_of(20, 20)
    times = np.zeros(40)
    for seed in range(2000):
        times[draw(labels, fraction=0.25, seed=seed)] += 1
    assert np.abs(times / 2000 - 0.25).max() < 0.045  # 4.6 standard errors


def test_equal_remainders_are_given_out_by_lot():
    labels = labels_of(10, 10)
    firsts = [np.bincount(labels[draw(labels, fraction=0.25, seed=seed)])[0] for seed in range(200)]
    assert set(firsts) == {2, 3}
    assert 70 < firsts.count(3) < 130


def test_a_number_per_class_draws_so_many_of_each():
    labels = labels_of(30, 7, 12)
    assert np.bincount(labels[draw(labels, per_class=5, seed=0)]).tolist() == [5, 5, 5]


def test_multilabel_draws_take_images_with_any_known_label():
    labels = np.full((40, 2), np.nan)
    labels[:20, 0] = 1
    drawn = draw(labels, fraction=0.5, seed=0)
    assert len(drawn) == 10
    assert drawn.max() < 20


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (
            labels_of(50, 50, 50),
            {"fraction": 0.01},
            r"0.01 of 150 labels are 2 for 3 classes: use a fraction of at least 0.02",
        ),
        (labels_of(50, 4), {"per_class": 5}, "got 5 and the rarest has 4"),
        (labels_of(50, 4), {"per_class": 0}, "got 0"),
        (labels_of(50, 4), {"fraction": 0.0}, "got 0.0"),
        (labels_of(50, 4), {"fraction": 1.5}, "got 1.5"),
        (np.full(5, -1), {"fraction": 0.5}, "have none"),
        (None, {"fraction": 0.5}, "have none"),
        (np.ones((5, 2)), {"per_class": 1}, "multi-label"),
    ],
)
def test_a_draw_that_cannot_be_made_is_refused_in_a_sentence(labels, options, message):
    with pytest.raises(InputError, match=message):
        draw(labels, seed=0, **options)


def test_a_draw_takes_exactly_one_of_fraction_and_number():
    with pytest.raises(ValueError, match="either"):
        draw(labels_of(5, 5), fraction=0.5, per_class=1, seed=0)


def test_a_validation_part_is_stratified_and_disjoint():
    labels = labels_of(40, 20)
    fit, validation = validation_part(labels)
    assert np.bincount(labels[validation]).tolist() == [8, 4]
    assert sorted([*fit, *validation]) == list(range(60))


def test_a_validation_part_never_cuts_a_group():
    groups = np.arange(60) // 3
    labels = (np.arange(60) // 3) % 2
    fit, validation = validation_part(labels, groups=groups, share=0.3)
    assert not set(groups[fit]) & set(groups[validation])
    assert set(labels[validation]) == set(labels[fit]) == {0, 1}


@pytest.mark.parametrize(
    ("labels", "groups"), [([0, 1, 2], None), ([0, 0, 0, 1], None), ([0, 0, 1, 1], [0, 0, 1, 2]), ([], None)]
)
def test_there_is_no_validation_part_where_a_class_would_vanish(labels, groups):
    labels = np.array(labels, dtype=np.int64)
    assert validation_part(labels, groups=None if groups is None else np.array(groups)) is None


def test_two_labels_a_class_are_one_to_fit_and_one_to_validate():
    labels = np.array([0, 0, 1, 1])
    fit, validation = validation_part(labels, share=0.2)
    assert sorted(labels[fit]) == sorted(labels[validation]) == [0, 1]


def test_groups_play_no_part_where_they_may_be_cut(image_set):
    labels, groups = labels_of(60, 60), np.arange(120) // 3
    whole = image_set(labels, groups=groups)
    cut = replace(whole, may_cut_groups=True)
    train, test = hold_out(cut)
    assert np.isin(groups[test], groups[train]).any()
    plain = hold_out(image_set(labels))
    assert all(np.array_equal(one, other) for one, other in zip((train, test), plain, strict=True))
    train, test = hold_out(whole)
    assert not np.isin(groups[test], groups[train]).any()


def test_a_given_split_may_cut_a_group_where_that_is_wanted(image_set):
    parts = np.array(["train", "test"] * 10)
    data = image_set(labels_of(10, 10), groups=np.arange(20) // 2, parts=parts)
    with pytest.raises(InputError, match="must not cut a group"):
        hold_out(data)
    train, test = hold_out(replace(data, may_cut_groups=True))
    assert (len(train), len(test)) == (10, 10)
