"""What a study says follows from its predictions, and the recommendation never from the test images."""

import re

import numpy as np
import pytest

from kontrast.evaluate import intervals
from kontrast.study.findings import Truth, chosen, differences, recommendation, score_rows, verdicts
from kontrast.study.plan import Answers, Budget, arms

TEST = np.arange(200) % 2
VALIDATION = np.arange(50) % 2
TRUTH = Truth(test=TEST, test_groups=None, validation=VALIDATION)
FEW, MANY = Budget(fraction=0.1), Budget(fraction=1.0)
ARMS = arms(("simclr", "byol"), ("linear",), "none")


def probabilities(labels, accuracy, seed):
    """Right for that share of the images, which ones by lot."""
    rng = np.random.default_rng(seed)
    right = np.zeros(len(labels), bool)
    right[rng.permutation(len(labels))[: round(accuracy * len(labels))]] = True
    found = np.where(right, labels, 1 - labels)
    return np.eye(2, dtype=np.float32)[found] * 0.8 + 0.1


def study(scores, *, budgets=(FEW,), seeds=2, num_draws=2, validation=True):
    """Answers of every arm, from `{key: (test accuracy, validation accuracy)}`."""
    cells = {}
    for at, budget in enumerate(budgets):
        for number, (key, (test, held)) in enumerate(scores.items()):
            cells[key, budget] = [
                [
                    Answers(
                        test=probabilities(TEST, test, [seed, draw, number, at]),
                        validation=probabilities(VALIDATION if validation else TEST[:0], held, [seed, draw]),
                        labelled=np.arange(20 if budget == FEW else 180),
                    )
                    for draw in range(num_draws)
                ]
                for seed in range(seeds)
            ]
    truth = TRUTH if validation else Truth(test=TEST, test_groups=None, validation=TEST[:0])
    rows = score_rows(cells, ARMS, budgets, truth, "accuracy")
    return cells, rows, differences(cells, ARMS, budgets, truth, "accuracy")


def scores(simclr, byol, scratch, untrained=(0.5, 0.5)):
    return {"simclr-linear": simclr, "byol-linear": byol, "scratch": scratch, "untrained-linear": untrained}


def test_the_recommendation_follows_the_validation_part_against_the_order_of_the_test():
    _, rows, _ = study(scores((0.95, 0.60), (0.60, 0.90), (0.80, 0.50)))
    assert chosen(rows, 20).arm == "byol-linear"
    said = recommendation(rows, "accuracy", len(VALIDATION))
    assert said.startswith("Recommended with 20 labels: BYOL, linear probe.")
    assert "50 labelled validation images" in said
    assert "(90.0 %; SimCLR, linear probe 60.0 %; From scratch 50.0 %; Untrained encoder, linear probe 50.0 %)" in said
    assert "not by the test score" in said


def test_no_test_prediction_can_change_what_is_recommended():
    first = study(scores((0.95, 0.60), (0.60, 0.90), (0.80, 0.50)))[1]
    other = study(scores((0.10, 0.60), (0.30, 0.90), (1.00, 0.50)))[1]
    assert recommendation(first, "accuracy", 50) == recommendation(other, "accuracy", 50)


def test_a_baseline_is_recommended_where_it_is_best():
    _, rows, _ = study(scores((0.9, 0.6), (0.9, 0.6), (0.7, 0.8)))
    assert recommendation(rows, "accuracy", 50).startswith("Recommended with 20 labels: From scratch.")


def test_the_verdict_is_about_the_method_chosen_on_the_validation_part():
    _, rows, found = study(scores((0.95, 0.60), (0.70, 0.90), (0.80, 0.95)))
    [said] = verdicts(rows, found)
    assert said.startswith("With 20 labels, BYOL, linear probe: ")


def test_without_a_validation_part_nothing_is_recommended_and_the_first_method_is_judged():
    _, rows, found = study(scores((0.6, 0), (0.9, 0), (0.7, 0)), validation=False)
    assert all(row.validation is None for row in rows)
    assert recommendation(rows, "accuracy", 0).startswith("No recommendation: some class has too few labels")
    assert verdicts(rows, found)[0].startswith("With 20 labels, SimCLR, linear probe: ")


@pytest.mark.parametrize(
    ("ours", "theirs", "finding"),
    [
        (0.95, 0.6, "pre-training helps"),
        (0.6, 0.95, "pre-training hurts"),
        (0.8, 0.8, "no difference shown"),
        (0.8, 0.79, "no difference shown"),
    ],
)
def test_the_verdict_says_whether_pre_training_helps_in_the_numbers_of_the_estimates(ours, theirs, finding):
    cells, rows, found = study(scores((ours, 0.9), (0.5, 0.5), (theirs, 0.7)))
    [said] = verdicts(rows, found)
    assert f": {finding} (" in said

    def stacked(key):
        return np.stack([np.stack([cell.test for cell in row]) for row in cells[key, FEW]])

    own, scratch = (intervals.estimate(TEST, stacked(key), "accuracy") for key in ("simclr-linear", "scratch"))
    gain = intervals.difference(TEST, stacked("simclr-linear"), stacked("scratch"), "accuracy")
    numbers = [float(x.replace("−", "-")) for x in re.findall(r"[+−]?\d+\.\d", said)]
    expected = [own.value, own.low, own.high, scratch.value, scratch.low, scratch.high, gain.value, gain.low, gain.high]
    assert numbers == pytest.approx([100 * x for x in expected], abs=0.05 + 1e-9)
    assert own.value == pytest.approx(ours)
    assert gain.value == pytest.approx(ours - theirs, abs=1e-6)
    assert "−0.0" not in said


def test_there_is_one_sentence_a_budget_fewest_labels_first():
    _, rows, found = study(scores((0.9, 0.9), (0.5, 0.5), (0.6, 0.7)), budgets=(MANY, FEW))
    assert [said.partition(",")[0] for said in verdicts(rows, found)] == ["With 20 labels", "With 180 labels"]
    assert recommendation(rows, "accuracy", 50).startswith("Recommended with 20 labels")


def test_every_arm_has_a_row_with_all_metrics_and_the_main_one_first():
    cells, _, _ = study(scores((0.9, 0.9), (0.5, 0.5), (0.6, 0.7)))
    rows = score_rows(cells, ARMS, (FEW,), TRUTH, "macro_f1")
    assert [row.arm for row in rows] == [arm.key for arm in ARMS]
    assert all(next(iter(row.scores)) == "macro_f1" and len(row.scores) == 4 for row in rows)
    assert {(row.num_labels, row.num_seeds, row.num_draws) for row in rows} == {(20, 2, 2)}


def test_differences_are_of_every_other_arm_to_the_one_from_scratch():
    _, _, found = study(scores((0.9, 0.9), (0.5, 0.5), (0.6, 0.7)))
    assert [one.arm for one in found] == ["simclr-linear", "byol-linear", "untrained-linear"]
    assert {one.baseline for one in found} == {"From scratch"}
    assert [one.finding for one in found] == ["helps", "hurts", "hurts"]
    assert found[0].estimate.value == pytest.approx(0.3, abs=1e-6)


def test_groups_of_test_images_widen_the_interval():
    cells, plain, _ = study(scores((0.9, 0.9), (0.5, 0.5), (0.6, 0.7)))
    grouped = Truth(test=TEST, test_groups=np.arange(200) // 40, validation=VALIDATION)
    rows = score_rows(cells, ARMS, (FEW,), grouped, "accuracy")
    one, other = (rows[0].scores["accuracy"], plain[0].scores["accuracy"])
    assert one.num_groups == 5
    assert "test groups" in one.scope
    assert one.value == other.value
