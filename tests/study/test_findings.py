"""What a study finds follows from its predictions: scores, paired differences, labels saved."""

import numpy as np
import pytest

from kontrast.evaluate import intervals
from kontrast.study.findings import Truth, differences, savings, score_rows
from kontrast.study.plan import Budget, arms

TEST = np.arange(200) % 2
VALIDATION = np.arange(50) % 2
TRUTH = Truth(test=TEST, test_groups=None, validation=VALIDATION)
FEW, MANY = Budget(fraction=0.1), Budget(fraction=1.0)
ARMS = arms({"simclr": "SimCLR", "byol": "BYOL"}, ("linear",))


def test_from_scratch_needs_for_our_score_what_its_own_curve_says(made_up):
    wanted = {
        FEW: made_up.scores((0.8, 0.9), (0.5, 0.5), (0.6, 0.7)),
        MANY: made_up.scores((0.9, 0.9), (0.5, 0.5), (1.0, 0.7)),
    }
    cells = made_up.answers(wanted[FEW], seeds=1, num_draws=1) | made_up.answers(
        wanted[MANY], budgets=(MANY,), seeds=1, num_draws=1
    )
    simclr, byol, *_ = savings(cells, ARMS, (MANY, FEW), TRUTH, "accuracy")
    assert (simclr.arm, simclr.num_labels, simclr.fewest, simclr.most) == ("simclr-linear", 20, 20, 180)
    assert simclr.value == pytest.approx(60)  # 80 % is half of the way from 60 to 100 %, 60 of that from 20 to 180
    assert simclr.low < simclr.value < simclr.high
    assert (byol.arm, byol.value) == ("byol-linear", 0)
    assert {(one.arm, one.num_labels) for one in savings(cells, ARMS, (FEW, MANY), TRUTH, "accuracy")} == {
        (arm, count) for arm in ("simclr-linear", "byol-linear") for count in (20, 180)
    }


def test_with_one_number_of_labels_nothing_is_said_about_savings(made_up):
    cells, _, _ = made_up.study(made_up.scores((0.9, 0.9), (0.5, 0.5), (0.6, 0.7)))
    assert savings(cells, ARMS, (FEW,), TRUTH, "accuracy") == []


def test_every_arm_has_a_row_with_all_metrics_and_the_main_one_first(made_up):
    cells, _, _ = made_up.study(made_up.scores((0.9, 0.9), (0.5, 0.5), (0.6, 0.7)))
    rows = score_rows(cells, ARMS, (FEW,), TRUTH, "macro_f1")
    assert [row.arm for row in rows] == [arm.key for arm in ARMS]
    assert all(next(iter(row.scores)) == "macro_f1" and len(row.scores) == 4 for row in rows)
    assert {(row.num_labels, row.num_seeds, row.num_draws) for row in rows} == {(20, 2, 2)}


def test_differences_are_of_every_other_arm_to_the_one_from_scratch_and_between_methods(made_up):
    cells, _, found = made_up.study(made_up.scores((0.9, 0.9), (0.5, 0.5), (0.6, 0.7)))
    pairs = [(one.arm, one.baseline, one.finding) for one in found]
    assert pairs == [
        ("simclr-linear", "From scratch", "helps"),
        ("byol-linear", "From scratch", "hurts"),
        ("untrained-linear", "From scratch", "lower"),
        ("simclr-linear", "BYOL, linear probe", "higher"),
        ("simclr-linear", "Untrained encoder, linear probe", "higher"),
        ("byol-linear", "Untrained encoder, linear probe", "no difference shown"),
    ]
    assert [one.estimate.value for one in found] == pytest.approx([0.3, -0.1, -0.1, 0.4, 0.4, 0.0], abs=1e-6)
    own, other = (
        np.stack([[c.test for c in row] for row in cells[arm, FEW]]) for arm in ("simclr-linear", "byol-linear")
    )
    assert found[3].estimate == intervals.difference(TEST, own.astype(float), other.astype(float), "accuracy")


def test_patients_are_resampled_as_a_whole_in_differences_and_savings(made_up):
    cells, _, _ = made_up.study(
        made_up.scores((0.8, 0.9), (0.5, 0.5), (0.7, 0.7)), budgets=(FEW, MANY), seeds=1, num_draws=1
    )
    patients = Truth(test=TEST, test_groups=np.arange(200) // 20, validation=VALIDATION)
    found = differences(cells, ARMS, (FEW,), patients, "accuracy")
    assert {one.estimate.num_groups for one in found} == {10}
    plain, grouped = (savings(cells, ARMS, (FEW, MANY), truth, "accuracy") for truth in (TRUTH, patients))
    assert [(one.low, one.high) for one in plain] != [(one.low, one.high) for one in grouped]


def test_methods_are_compared_with_given_weights_and_given_weights_with_each_other_never(made_up):
    given = arms({"simclr": "SimCLR"}, ("linear",), "Given weights")
    wanted = {arm.key: (0.8, 0.8) for arm in given}
    cells = made_up.answers(wanted)
    pairs = [(one.arm, one.baseline) for one in differences(cells, given, (FEW,), TRUTH, "accuracy")]
    titles = {arm.key: arm.title for arm in given}
    assert ("simclr-linear", titles["given-linear"]) in pairs
    assert ("simclr-linear", titles["given-finetune"]) in pairs
    assert ("given-finetune", titles["given-linear"]) not in pairs


def test_groups_of_test_images_widen_the_interval(made_up):
    cells, plain, _ = made_up.study(made_up.scores((0.9, 0.9), (0.5, 0.5), (0.6, 0.7)))
    grouped = Truth(test=TEST, test_groups=np.arange(200) // 40, validation=VALIDATION)
    rows = score_rows(cells, ARMS, (FEW,), grouped, "accuracy")
    one, other = (rows[0].scores["accuracy"], plain[0].scores["accuracy"])
    assert one.num_groups == 5
    assert "test groups" in one.scope
    assert one.value == other.value
