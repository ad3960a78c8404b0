"""What a study says follows from its findings, and the recommendation never from the test images."""

import re

import numpy as np
import pytest

from kontrast.evaluate import intervals
from kontrast.study.contents import Difference, Row
from kontrast.study.findings import Truth, differences, savings, score_rows
from kontrast.study.plan import Budget, arms
from kontrast.study.verdict import chosen, outlook, recommendation, verdicts

TEST = np.arange(200) % 2
VALIDATION = np.arange(50) % 2
TRUTH = Truth(test=TEST, test_groups=None, validation=VALIDATION)
FEW, MANY = Budget(fraction=0.1), Budget(fraction=1.0)
ARMS = arms({"simclr": "SimCLR", "byol": "BYOL"}, ("linear",))


def test_the_recommendation_follows_the_validation_part_against_the_order_of_the_test(made_up):
    _, rows, _ = made_up.study(made_up.scores((0.95, 0.60), (0.60, 0.90), (0.80, 0.50)))
    assert chosen(rows, 20).arm == "byol-linear"
    said = recommendation(rows, "accuracy", len(VALIDATION))
    assert said.startswith("Recommended with 20 labels: BYOL, linear probe.")
    assert "50 validation images whose labels no model had learned from" in said
    assert "(90.0 %; SimCLR, linear probe 60.0 %; From scratch 50.0 %; Untrained encoder, linear probe 50.0 %)" in said
    assert "not by the test score" in said


def test_no_test_prediction_can_change_what_is_recommended(made_up):
    first = made_up.study(made_up.scores((0.95, 0.60), (0.60, 0.90), (0.80, 0.50)))[1]
    other = made_up.study(made_up.scores((0.10, 0.60), (0.30, 0.90), (1.00, 0.50)))[1]
    assert recommendation(first, "accuracy", 50) == recommendation(other, "accuracy", 50)


def test_a_baseline_is_recommended_where_it_is_best(made_up):
    _, rows, _ = made_up.study(made_up.scores((0.9, 0.6), (0.9, 0.6), (0.7, 0.8)))
    assert recommendation(rows, "accuracy", 50).startswith("Recommended with 20 labels: From scratch.")


def test_the_verdict_is_about_the_method_chosen_on_the_validation_part(made_up):
    _, rows, found = made_up.study(made_up.scores((0.95, 0.60), (0.70, 0.90), (0.80, 0.95)))
    [said] = verdicts(rows, found)
    assert ": BYOL, linear probe reaches " in said


def test_without_a_validation_part_nothing_is_recommended_and_the_first_method_is_judged(made_up):
    _, rows, found = made_up.study(made_up.scores((0.6, 0), (0.9, 0), (0.7, 0)), validation=False)
    assert all(row.validation is None for row in rows)
    assert recommendation(rows, "accuracy", 0).startswith("No recommendation: there are too few labels")
    assert ": SimCLR, linear probe reaches " in verdicts(rows, found)[0]


@pytest.mark.parametrize(
    ("ours", "theirs", "finding"),
    [
        (0.95, 0.6, "pre-training helps"),
        (0.6, 0.95, "pre-training hurts"),
        (0.8, 0.8, "no difference shown"),
        (0.8, 0.79, "no difference shown"),
    ],
)
def test_the_verdict_says_whether_pre_training_helps_in_the_numbers_of_the_estimates(made_up, ours, theirs, finding):
    cells, rows, found = made_up.study(made_up.scores((ours, 0.9), (0.5, 0.5), (theirs, 0.7)))
    [said] = verdicts(rows, found)
    assert said.startswith(f"With 20 labels, {finding}: SimCLR, linear probe reaches ")

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


def test_the_verdict_has_a_headline_for_the_fewest_labels_and_one_sentence_for_all_others(made_up):
    _, rows, found = made_up.study(made_up.scores((0.9, 0.9), (0.5, 0.5), (0.6, 0.7)), budgets=(MANY, FEW))
    headline, others = verdicts(rows, found)
    assert headline.startswith("With 20 labels, pre-training helps: SimCLR, linear probe reaches 90.0 %")
    assert others.startswith("More labels: with 180, pre-training helps (SimCLR, linear probe, +30.0 points [")
    assert recommendation(rows, "accuracy", 50).startswith("Recommended with 20 labels")


def test_where_a_difference_is_shown_only_more_seeds_are_asked_for_and_only_of_a_single_one(made_up):
    several = outlook(*made_up.study(made_up.scores((0.9, 0.9), (0.5, 0.5), (0.6, 0.7)))[1:])
    assert several == (
        "The sign of the difference to from scratch is clear of chance; more evidence would only narrow its interval."
    )
    single = outlook(*made_up.study(made_up.scores((0.9, 0.9), (0.5, 0.5), (0.6, 0.7)), seeds=1)[1:])
    assert single == f"{several} All this is about one encoder; --seeds 3 would tell whether it holds for the method."


def gain(value, half, of_runs, *, num_labels=20, num_seeds=3):
    """A method that is so much better than from scratch, and what both have as rows."""
    estimate = intervals.Estimate(
        value=value, low=value - half, high=value + half, num_seeds=num_seeds, num_draws=3, num_items=200,
        of_runs=of_runs, scope="",
    )  # fmt: skip
    common = {"fraction": None, "num_labels": num_labels, "scores": {}, "num_seeds": num_seeds, "num_draws": 3}
    rows = [
        Row(arm=arm, title=title, kind=kind, validation=0.5, **common)
        for arm, title, kind in (("simclr", "SimCLR", "method"), ("scratch", "From scratch", "baseline"))
    ]
    word = intervals.verdict(estimate)
    found = Difference(
        arm="simclr", title="SimCLR", baseline="From scratch", num_labels=num_labels, metric="accuracy",
        estimate=estimate, finding=word,
    )  # fmt: skip
    return rows, [found]


@pytest.mark.parametrize(
    ("value", "half", "of_runs", "num_seeds", "expected"),
    [
        (0.03, 0.04, 0.8, 3, "about 3 times as many seeds (--seeds) would show it."),
        (0.03, 0.04, 0.8, 1, "about 3 times as many label draws (--draws) would show it."),
        (-0.04, 0.05, 0.3, 3, "difference of −4.0 points is real, about 3 times as many test images would show it."),
        (0.02, 0.04, 0.8, 3, "about 16 times as many seeds (--seeds) would show it."),
        (0.02, 0.04, 0.55, 3, "about 4 times as many seeds (--seeds) and as many times the test images would show it"),
        (0.01, 0.05, 0.3, 3, "cannot tell the two apart: for a difference of +1.0 points, not with 25 times"),
        (0.17, 0.9, 0.3, 3, "cannot tell the two apart"),
        (0.0, 0.05, 0.3, 3, "cannot tell the two apart"),
        (0.001, 0.015, 0.3, 3, "within 2 points of 0: treat the two as equal here"),
    ],
)
def test_what_would_show_a_difference_follows_from_its_size_and_from_what_varies_most(
    value, half, of_runs, num_seeds, expected
):
    assert expected in outlook(*gain(value, half, of_runs, num_seeds=num_seeds))


@pytest.mark.parametrize(
    ("few", "many", "expected"),
    [
        (0.10, 0.01, "With more labels the difference shrinks, from +10.0 points with 20 labels to +1.0 with 180."),
        (0.10, 0.30, "With more labels the difference grows, from +10.0 points with 20 labels to +30.0 with 180."),
        (-0.02, -0.10, "With more labels the difference grows, from −2.0 points with 20 labels to −10.0 with 180."),
        (-0.10, -0.02, "With more labels the difference shrinks, from −10.0 points with 20 labels to −2.0 with 180."),
        (0.05, -0.10, "With more labels the difference turns, from +5.0 points with 20 labels to −10.0 with 180."),
        (0.10, 0.09, "is not shown: the intervals overlap."),
    ],
)
def test_more_labels_change_the_difference_only_where_the_intervals_do_not_overlap(few, many, expected):
    few, lots = gain(few, 0.02, 0.5), gain(many, 0.02, 0.5, num_labels=180)
    assert outlook(few[0] + lots[0], few[1] + lots[1]).endswith(expected)


def test_what_an_untrained_encoder_does_as_well_is_no_help_of_pre_training(made_up):
    _, rows, found = made_up.study(made_up.scores((0.9, 0.9), (0.5, 0.5), (0.6, 0.7), untrained=(0.9, 0.5)))
    [said] = verdicts(rows, found)
    assert said.startswith(
        "With 20 labels, better than from scratch, but not shown to be better than “Untrained encoder, linear probe” "
        "(0.0 points ["
    )


def test_with_given_weights_these_are_what_pre_training_has_to_beat(made_up):
    given = arms({"simclr": "SimCLR"}, ("linear",), "Given weights")
    wanted = {arm.key: (0.6, 0.6) for arm in given} | {"simclr-linear": (0.9, 0.9), "given-linear": (0.9, 0.5)}
    cells = made_up.answers(wanted)
    rows = score_rows(cells, given, (FEW,), TRUTH, "accuracy")
    [said] = verdicts(rows, differences(cells, given, (FEW,), TRUTH, "accuracy"))
    assert "not shown to be better than “Given weights, no contrastive stage, linear probe”" in said


def test_arms_less_than_one_validation_image_apart_are_told_as_equal_and_the_cheaper_one_is_recommended(made_up):
    _, rows, _ = made_up.study(made_up.scores((0.9, 0.9), (0.5, 0.5), (0.6, 0.7), untrained=(0.5, 0.9)))
    said = recommendation(rows, "accuracy", len(VALIDATION))
    assert said.startswith("Recommended with 20 labels: Untrained encoder, linear probe.")
    assert said.endswith("SimCLR, linear probe did as well, to one image.")


def test_a_score_that_validation_images_do_not_define_recommends_nothing(made_up):
    cells, _, _ = made_up.study(made_up.scores((0.9, 0.9), (0.5, 0.5), (0.6, 0.7)))
    one_class = Truth(test=TEST, test_groups=None, validation=np.zeros(50, dtype=int))
    rows = score_rows(cells, ARMS, (FEW,), one_class, "auroc")
    assert {row.validation for row in rows} == {None}
    assert recommendation(rows, "auroc", 50).startswith("No recommendation: ")
    assert "define AUROC" in recommendation(rows, "auroc", 50)


def test_a_score_that_test_images_do_not_define_compares_nothing(made_up):
    cells, _, _ = made_up.study(made_up.scores((0.9, 0.9), (0.5, 0.5), (0.6, 0.7)), budgets=(FEW, MANY))
    one_class = Truth(test=np.zeros(200, dtype=int), test_groups=None, validation=VALIDATION)
    asked = (cells, ARMS, (FEW, MANY), one_class, "auroc")
    rows, found = score_rows(*asked), differences(*asked)
    assert verdicts(rows, found) == ("These test images do not define AUROC, so nothing is compared.",)
    assert outlook(rows, found) == ""
    assert all(np.isnan([one.value, one.low, one.high]).all() for one in savings(*asked))
