"""What runs made of their policy is told as their files have it, and no change is claimed that not all runs share."""

import json

import numpy as np
import pytest
import torch

from kontrast import data
from kontrast.augment import policies, policy_file
from kontrast.augment.learned import LearnedPolicy
from kontrast.augment.operations import OPERATIONS, compose, constants
from kontrast.augment.policies import Policy
from kontrast.methods.learned_views import LearnedViews, Mode
from kontrast.study import lessons

SIZE = 16


def policy(**changed):
    """The policy for digits with some operations changed."""
    return compose(SIZE, "zeros", constants(policies.digits(SIZE)) | changed)


def write(folder, left, *, epochs=3, learned=True):
    """A run that left this policy, as training writes it."""
    shown = LearnedPolicy(left, channels=1).shown() if learned else {}
    row = {f"policy.{name}": float(value) for name, value in shown.items()} | {"loss": 1.0, "contrast": 4.0}
    folder.mkdir(parents=True)
    lines = [json.dumps({"epoch": epoch, **row}) for epoch in range(1, epochs + 1)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    policy_file.write(left, folder / "policy.yaml")


def read(folder):
    return lessons.read(folder, size=SIZE, channels=1)


def learned(folder, start=None):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    told = {"key": "learned_views", "title": "LearnedViews", "note": "", "out": folder.parent}
    return lessons.learned(read(folder), start or policy(), data.open(list(pixels)), **told)


def operation(found, name):
    return next(one for one in found.operations if one.name == name)


def test_runs_come_with_the_fewest_labels_first_and_then_by_seed(tmp_path):
    for name in ("seed-10-labels-48-0badcafe", "seed-9-labels-48-0badcafe", "seed-0-labels-480-0badcafe"):
        write(tmp_path / name, policy())
    assert [run.title for run in read(tmp_path)] == ["48 labels, seed 9", "48 labels, seed 10", "480 labels, seed 0"]


def test_a_method_without_labels_names_its_seed_alone(tmp_path):
    write(tmp_path / "seed-3", policy())
    (run,) = read(tmp_path)
    assert (run.title, run.num_labels) == ("seed 3", None)


def test_runs_that_learned_no_policy_or_are_not_finished_are_no_lessons(tmp_path):
    write(tmp_path / "seed-0", policy(), learned=False)
    write(tmp_path / "seed-1", policy())
    (tmp_path / "seed-1/policy.yaml").unlink()
    write(tmp_path / "notes", policy())
    assert read(tmp_path) == []
    assert read(tmp_path / "nothing") == []


def test_each_operation_is_told_as_its_files_have_it_with_the_mean_and_the_range_over_runs(tmp_path):
    runs = tmp_path / "runs"
    write(runs / "seed-0-labels-48-0badcafe", policy(rotation=20.0, area=(0.3, 1.0)))
    write(runs / "seed-1-labels-48-0badcafe", policy(rotation=30.0, area=(0.2, 1.0)))
    write(runs / "seed-0-labels-480-0badcafe", policy(aspect=(0.5, 2.0)))
    found = learned(runs)
    turned, area, aspect = (operation(found, name) for name in ("rotation", "area", "aspect"))
    assert (turned.start, turned.nothing, turned.what) == (15, 0, "degrees, largest to either side")
    assert (area.start, area.nothing, area.what) == (0.4, 1, "share of the image area, smallest")
    assert (aspect.nothing, aspect.what) == (1, "width over height, largest")
    assert aspect.start == pytest.approx(4 / 3)
    assert [end.num_labels for end in turned.ends] == [48, 480]
    assert [(end.num_runs, end.value, end.low, end.high) for end in turned.ends] == [(2, 25, 20, 30), (1, 15, 15, 15)]
    assert [end.value for end in area.ends] == pytest.approx([0.25, 0.4])
    assert aspect.ends[1].value == pytest.approx(2)


def test_a_course_begins_at_the_start_and_follows_the_epochs_of_its_run(tmp_path):
    write(tmp_path / "runs/seed-0", policy(rotation=20.0))
    (course,) = operation(learned(tmp_path / "runs"), "rotation").courses
    assert course.epochs == (0, 1, 2, 3)
    assert course.values == pytest.approx((15, 20, 20, 20))


def test_the_example_is_the_first_seed_with_the_fewest_labels_and_its_file_can_be_used(tmp_path):
    for name, turn in (("seed-1-labels-48-0badcafe", 40.0), ("seed-0-labels-48-0badcafe", 20.0)):
        write(tmp_path / "runs" / name, policy(rotation=turn))
    found = learned(tmp_path / "runs")
    assert (found.run, found.path) == ("48 labels, seed 0", "runs/seed-0-labels-48-0badcafe/policy.yaml")
    assert found.policy == (tmp_path / found.path).read_text()
    assert policy_file.read(tmp_path / found.path, size=SIZE, channels=1).geometry.rotation == 20
    assert all(one.before != one.after for one in found.views)


def test_a_policy_that_never_moved_is_said_to_have_stayed_and_shows_equal_views(tmp_path):
    left = LearnedPolicy(policy(), channels=1).freeze()
    assert constants(left) != constants(policy()), "stored in single precision, so not to the last digit"
    for seed in range(2):
        write(tmp_path / f"runs/seed-{seed}", left)
    found = learned(tmp_path / "runs")
    said = "Without labels, in both runs, the policy never moved: every operation ended where it began."
    assert found.findings == (said,)
    assert all(one.before == one.after for one in found.views)


def test_only_what_all_runs_share_is_called_stronger_or_weaker(tmp_path):
    """A smaller area is a stronger crop; shear goes both ways, and contrast hardly anywhere."""
    shared = {"area": (0.3, 1.0), "rotation": 10.0, "brightness": 0.5}
    write(tmp_path / "runs/seed-0-labels-48-0badcafe", policy(**shared, shear=25.0, contrast=0.41))
    write(tmp_path / "runs/seed-1-labels-48-0badcafe", policy(**shared, shear=10.0, contrast=0.41))
    assert learned(tmp_path / "runs").findings == (
        "With 48 labels, in both runs: area and brightness became stronger; rotation became weaker; the others changed "
        "by less than 5 % of their strength, or not the same way in all runs.",
    )


def test_a_policy_that_hardly_moved_is_not_called_unmoved(tmp_path):
    write(tmp_path / "runs/seed-0", policy(contrast=0.41))
    said = "Without labels, in the one run: every operation changed by less than 5 % of its strength."
    assert learned(tmp_path / "runs").findings == (said,)


def test_views_at_the_start_are_those_of_the_operations_that_were_learned(tmp_path):
    """RandAugment picks operations of its own for each view, which a learned policy does not do."""
    start = policies.RandAugment(SIZE)
    write(tmp_path / "runs/seed-0", Policy(start.geometry, start.intensity))
    assert all(one.before == one.after for one in learned(tmp_path / "runs", start).views)


def test_every_range_is_named_by_the_end_that_is_shown():
    for name, each in OPERATIONS.items():
        if each.form in ("share", "ratio", "top"):
            said = lessons._what(each)
            assert ("smallest" in said, "largest" in said) == (each.form == "share", each.form != "share"), name
            assert float(each.shown(torch.tensor(0.0))) == (0 if each.form == "top" else 1)


@pytest.mark.parametrize("mode", Mode.__args__)
def test_the_note_says_what_the_policy_aims_at_and_when(mode):
    said = lessons.note(LearnedViews.Config(mode=mode, start=0.25, freeze=0.75))
    assert f"In mode {mode}, the policy learns to make " in said
    assert "from 25 % to 75 % of the training" in said
    assert ("reads no labels" in said) == (mode == "adversarial")


def test_a_network_is_named_and_what_is_shown_is_said_to_be_a_mean():
    assert "mean over images" in lessons.note(LearnedViews.Config(producer="network"))
    assert "network" not in lessons.note(LearnedViews.Config())
