"""The plan: which labels each arm may see, and where its answers are kept."""

import subprocess
import sys

import numpy as np
import pytest

from kontrast.data.images import ImageSet
from kontrast.errors import InputError
from kontrast.study.plan import (
    Answers,
    Budget,
    arms,
    cell_path,
    draws,
    read_answers,
    validation_positions,
    write_answers,
)


def images(labels, groups=None):
    labels = np.asarray(labels)
    return ImageSet(
        name="made",
        pixels=np.zeros((len(labels), 1, 1, 1), np.uint8),
        rows=np.arange(len(labels)),
        names=tuple(map(str, range(len(labels)))),
        labels=labels,
        classes=("a", "b", "c"),
        groups=groups,
        parts=None,
        skipped=(),
        fingerprint="",
    )


LABELS = np.repeat([0, 1, 2], [100, 60, 40])
ALL = np.arange(200)


def planned(budget, *, labels=LABELS, seed=0, num_draws=3):
    train = images(labels)
    known = np.flatnonzero(labels >= 0)
    validation = validation_positions(train, known)
    return validation, list(draws(train, known, validation, budget, seed=seed, num_draws=num_draws))


def test_the_arms_are_every_method_under_every_protocol_and_the_sceptics_baselines():
    found = arms({"simclr": "SimCLR", "byol": "BYOL"}, ("linear", "finetune"))
    assert [arm.key for arm in found] == [
        "simclr-linear", "simclr-finetune", "byol-linear", "byol-finetune", "scratch", "untrained-linear",
    ]  # fmt: skip
    assert [arm.kind for arm in found] == ["method"] * 4 + ["baseline"] * 2
    assert {arm.key: arm.start for arm in found[4:]} == {"scratch": "fresh", "untrained-linear": "fresh"}


def test_given_weights_are_a_baseline_of_their_own_probed_and_fine_tuned():
    found = arms({"simclr": "SimCLR"}, ("linear", "knn"), "ImageNet weights")
    given = {arm.key: arm.protocol for arm in found if arm.start == "given"}
    assert given == {"given-finetune": "finetune", "given-linear": "linear", "given-knn": "knn"}
    assert {arm.key for arm in found if arm.start == "fresh"} == {"scratch", "untrained-linear", "untrained-knn"}


def test_the_validation_part_is_a_stratified_fifth_and_always_the_same():
    train = images(LABELS)
    found = validation_positions(train, ALL)
    assert np.bincount(LABELS[found]).tolist() == [20, 12, 8]
    assert np.array_equal(found, validation_positions(train, ALL))


def test_the_validation_part_never_cuts_a_group():
    groups = np.arange(200) // 4
    found = validation_positions(images(LABELS, groups), ALL)
    assert len(found)
    assert not set(groups[found]) & set(groups[np.setdiff1d(ALL, found)])


def test_a_class_with_one_label_leaves_no_validation_part():
    assert len(validation_positions(images([0] * 9 + [1]), np.arange(10))) == 0


@pytest.mark.parametrize("budget", [Budget(fraction=0.05), Budget(fraction=0.5), Budget(per_class=5)], ids=str)
def test_labels_are_drawn_outside_the_validation_part_as_long_as_it_suffices(budget):
    validation, found = planned(budget)
    assert len(found) == 3
    for one in found:
        assert not set(one.labelled) & set(validation)
        assert len(set(one.labelled)) == len(one.labelled)


def test_draws_have_the_size_asked_for_and_the_shares_of_the_classes():
    for one in planned(Budget(fraction=0.1))[1]:
        assert np.bincount(LABELS[one.labelled]).tolist() == [10, 6, 4]
    for one in planned(Budget(per_class=7))[1]:
        assert np.bincount(LABELS[one.labelled]).tolist() == [7, 7, 7]


def test_all_labels_are_all_labels_and_drawn_once():
    _, [only] = planned(Budget(fraction=1.0), num_draws=5)
    assert np.array_equal(only.labelled, ALL)


def test_a_number_of_each_class_that_takes_every_label_is_drawn_once():
    labels = np.arange(60) % 3
    _, [only] = planned(Budget(per_class=20), labels=labels, num_draws=5)
    assert np.array_equal(only.labelled, np.arange(60))
    assert len(planned(Budget(per_class=19), labels=labels, num_draws=5)[1]) == 5


def test_a_budget_that_needs_the_validation_part_draws_from_all_labels():
    validation, found = planned(Budget(fraction=0.9))
    assert all(len(one.labelled) == 180 for one in found)
    assert all(set(one.labelled) & set(validation) for one in found)


def test_images_without_a_label_are_never_drawn():
    labels = LABELS.copy()
    labels[::2] = -1
    for one in planned(Budget(fraction=0.3), labels=labels)[1]:
        assert (labels[one.labelled] >= 0).all()
        assert len(one.labelled) == 30


def test_draws_differ_from_each_other_and_between_seeds_and_repeat_with_the_same_seed():
    first, again, other = (planned(Budget(fraction=0.1), seed=seed)[1] for seed in (0, 0, 1))
    assert all(np.array_equal(a.labelled, b.labelled) and a.seed == b.seed for a, b in zip(first, again, strict=True))
    sets = [tuple(one.labelled) for one in [*first, *other]]
    assert len(set(sets)) == 6
    assert len({one.seed for one in [*first, *other]}) == 6


def test_another_process_draws_the_same():
    code = f"""
import sys
sys.path.insert(0, {str(__file__).rpartition("/")[0]!r})
from test_plan import Budget, planned
for one in planned(Budget(fraction=0.1))[1]:
    print(one.seed, *one.labelled)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = [f"{one.seed} {' '.join(map(str, one.labelled))}" for one in planned(Budget(fraction=0.1))[1]]
    assert done.stdout.splitlines() == here


@pytest.mark.parametrize(
    "budget", [Budget(fraction=0.01), Budget(fraction=1.5), Budget(per_class=41), Budget(per_class=0)], ids=str
)
def test_a_budget_that_the_labels_cannot_fill_is_refused(budget):
    with pytest.raises(InputError):
        planned(budget)


def test_answers_come_back_as_they_were_and_nothing_else_is_left(tmp_path):
    arm, (_, found) = arms({"simclr": "SimCLR"}, ("linear",))[0], planned(Budget(fraction=0.1))
    path = cell_path(tmp_path, arm, 3, found[1])
    assert path.relative_to(tmp_path).as_posix() == "cells/simclr-linear/seed-3/fraction-0.1-draw-1.npz"
    answers = Answers(
        test=np.random.default_rng(0).random((5, 3), dtype=np.float32),
        validation=np.zeros((0, 3), np.float32),
        labelled=found[1].labelled,
    )
    write_answers(path, answers)
    back = read_answers(path)
    assert all(np.array_equal(getattr(back, key), getattr(answers, key)) for key in ("test", "validation", "labelled"))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [b"", b"no zip", None])
def test_damaged_predictions_are_named_with_the_way_out(content, tmp_path):
    path = tmp_path / "cell.npz"
    write_answers(path, Answers(test=np.eye(2), validation=np.eye(2), labelled=np.arange(2)))
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    with pytest.raises(InputError, match=r"cell\.npz is damaged .*delete it"):
        read_answers(path)


def test_cells_of_different_arms_seeds_budgets_and_draws_never_share_a_file(tmp_path):
    found = [one for budget in (Budget(fraction=0.1), Budget(per_class=5)) for one in planned(budget)[1]]
    keys = arms({"simclr": "SimCLR", "byol": "BYOL"}, ("linear", "knn", "finetune"), "Given weights")
    paths = {cell_path(tmp_path, arm, seed, one) for arm in keys for seed in (0, 1) for one in found}
    assert len(paths) == len(keys) * 2 * 6
