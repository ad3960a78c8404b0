"""Calibration against plain loops, a grid and known truths."""

import math

import numpy as np
import pytest

from kontrast.evaluate.calibration import (
    HIGHEST,
    LOWEST,
    calibrated,
    confidences,
    reliability,
    risk_coverage,
    temperature,
)


def drawn(count=400, classes=4, *, true_temperature=1.0, seed=0):
    """Logits, and labels drawn from the softmax of logits over the true temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (count, classes))
    chances = np.exp(logits / true_temperature)
    chances /= chances.sum(1, keepdims=True)
    labels = np.array([rng.choice(classes, p=row) for row in chances])
    return logits, labels


def drawn_multilabel(count=400, classes=3, *, true_temperature=1.0, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (count, classes))
    labels = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits / true_temperature))).astype(float)
    labels[rng.random(labels.shape) < 0.2] = np.nan
    return logits, labels


def ece_by_loop(answers, num_bins):
    """`answers` are pairs of a confidence and whether it came true; bins as Guo et al. define them."""
    total = 0.0
    for number in range(num_bins):
        low, high = number / num_bins, (number + 1) / num_bins
        inside = [(c, t) for c, t in answers if low < c <= high or (number == 0 and c == 0)]
        if inside:
            gap = abs(sum(c for c, _ in inside) / len(inside) - sum(t for _, t in inside) / len(inside))
            total += len(inside) / len(answers) * gap
    return total


def loss_by_loop(logits, labels, candidate):
    losses = []
    for row, label in zip(logits, labels, strict=True):
        if np.ndim(label):
            for z, y in zip(row, label, strict=True):
                if not math.isnan(y):
                    losses.append(math.log1p(math.exp(-abs(z / candidate))) + max((1 - 2 * y) * z / candidate, 0))
        else:
            losses.append(math.log(sum(math.exp((z - row[label]) / candidate) for z in row)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_the_calibration_error_is_that_of_a_plain_loop(num_bins):
    logits, labels = drawn()
    probabilities = calibrated(logits, temperature=0.5, multilabel=False)
    answers = [(max(row), int(np.argmax(row)) == y) for row, y in zip(probabilities, labels, strict=True)]
    found = reliability(labels, probabilities, num_bins=num_bins)
    assert found.ece == pytest.approx(ece_by_loop(answers, num_bins), abs=1e-12)
    assert found.count.sum() == len(labels)
    assert (np.diff(found.confidence) > 0).all()


def test_the_calibration_error_of_multilabel_data_is_that_of_all_known_cells():
    logits, labels = drawn_multilabel()
    probabilities = calibrated(logits, temperature=0.4, multilabel=True)
    cells = zip(probabilities.ravel(), labels.ravel(), strict=True)
    answers = [(p, y == 1) for p, y in cells if not math.isnan(y)]
    found = reliability(labels, probabilities)
    assert found.ece == pytest.approx(ece_by_loop(answers, 15), abs=1e-12)
    assert found.count.sum() == len(answers)


def test_edges_of_bins_belong_to_the_bin_below_and_zero_to_the_first():
    found = reliability(np.array([[1.0], [0.0], [1.0], [0.0]]), np.array([[0.0], [0.5], [0.5], [1.0]]), num_bins=2)
    assert found.count.tolist() == [3, 1]
    assert found.confidence.tolist() == pytest.approx([1 / 3, 1])
    assert found.accuracy.tolist() == pytest.approx([2 / 3, 0])
    assert found.ece == pytest.approx(3 / 4 * 1 / 3 + 1 / 4)


def test_certainty_that_is_right_has_no_error_and_certainty_that_is_wrong_has_all_of_it():
    sure = np.eye(3)
    assert reliability(np.arange(3), sure).ece == 0
    assert reliability(np.array([1, 2, 0]), sure).ece == 1


def test_without_a_known_cell_there_are_no_bins_and_no_error():
    found = reliability(np.full((2, 2), np.nan), np.full((2, 2), 0.5))
    assert len(found.count) == len(found.confidence) == 0
    assert math.isnan(found.ece)


@pytest.mark.parametrize("make", [drawn, drawn_multilabel])
@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_temperature_is_the_best_of_a_fine_grid(make, true):
    logits, labels = make(true_temperature=true)
    grid = np.exp(np.linspace(np.log(0.1), np.log(10), 400))
    best = min(grid, key=lambda candidate: loss_by_loop(logits, labels, candidate))
    found = temperature(logits, labels)
    assert found == pytest.approx(best, rel=0.012)
    assert loss_by_loop(logits, labels, found) <= loss_by_loop(logits, labels, best) + 1e-12


@pytest.mark.parametrize("make", [drawn, drawn_multilabel])
def test_logits_that_are_twice_too_large_get_twice_the_temperature(make):
    logits, labels = make(true_temperature=1.5)
    assert temperature(2 * logits, labels) == pytest.approx(2 * temperature(logits, labels), rel=1e-5)


def test_the_true_temperature_is_found_from_many_labels():
    logits, labels = drawn(20_000, true_temperature=3.0)
    assert temperature(logits, labels) == pytest.approx(3.0, rel=0.05)
    before, after = (reliability(labels, calibrated(logits, temperature=t, multilabel=False)).ece for t in (1.0, 3.0))
    assert after < 0.02 < 0.1 < before


def test_labels_that_are_all_right_or_all_wrong_end_at_a_bound():
    logits = np.array([[30.0, -30.0], [-500.0, 500.0]])
    assert temperature(logits, np.array([0, 1])) == LOWEST
    assert temperature(logits, np.array([1, 0])) == pytest.approx(HIGHEST)
    signs = np.array([[1.0, 0.0], [np.nan, 1.0]])
    assert temperature(logits, signs) == LOWEST
    assert temperature(logits, 1 - signs) == pytest.approx(HIGHEST)


def test_logits_that_say_nothing_give_a_temperature_within_the_bounds():
    assert LOWEST <= temperature(np.zeros((5, 3)), np.array([0, 1, 2, 0, 1])) <= HIGHEST


def test_a_temperature_never_changes_the_answer():
    logits, _ = drawn()
    for value in (LOWEST, 0.7, HIGHEST):
        probabilities = calibrated(logits, temperature=value, multilabel=False)
        assert np.array_equal(probabilities.argmax(1), logits.argmax(1))
        assert probabilities.sum(1) == pytest.approx(1)
        assert np.array_equal(calibrated(logits, temperature=value, multilabel=True) >= 0.5, logits >= 0)


def test_coverage_and_accuracy_are_those_of_the_images_that_are_answered():
    logits, labels = drawn(200)
    probabilities = calibrated(logits, temperature=1.0, multilabel=False)
    for row in risk_coverage(labels, probabilities, thresholds=(0.0, 0.6, 0.9)):
        answered = [(p, y) for p, y in zip(probabilities, labels, strict=True) if max(p) >= row.abstain_below]
        assert row.answered == pytest.approx(len(answered) / 200)
        assert row.accuracy.value == pytest.approx(np.mean([np.argmax(p) == y for p, y in answered]))
        assert row.accuracy.num_items == len(answered)


def test_multilabel_answers_are_withheld_class_by_class():
    logits, labels = drawn_multilabel(100)
    probabilities = calibrated(logits, temperature=1.0, multilabel=True)
    (row,) = risk_coverage(labels, probabilities, thresholds=(0.8,))
    cells = list(zip(probabilities.ravel(), labels.ravel(), strict=True))
    known = [(p, y) for p, y in cells if not math.isnan(y)]
    answered = [(p, y) for p, y in known if max(p, 1 - p) >= 0.8]
    assert row.answered == pytest.approx(len(answered) / len(known))
    assert row.accuracy.value == pytest.approx(np.mean([(p >= 0.5) == (y == 1) for p, y in answered]))
    assert confidences(probabilities, multilabel=True).min() >= 0.5


def test_whole_groups_are_resampled_and_one_group_has_no_interval():
    labels, probabilities = np.array([0, 1, 0, 1]), np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.6, 0.4]])
    rows = risk_coverage(labels, probabilities, groups=np.array([0, 0, 1, 2]), thresholds=(0.0, 0.8, 0.95))
    assert rows[0].accuracy.num_groups == 3
    assert [row.answered for row in rows] == [1, 0.5, 0]
    assert rows[1].accuracy is None
    assert rows[2].accuracy is None


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: reliability(np.array([0, 1]), np.array([[2.0, -1.0], [0.5, 0.5]])), "in 0..1; got -1..2"),
        (lambda: reliability(np.array([0]), np.array([[1.0, 0.0]]), num_bins=0), "at least one bin; got 0"),
        (lambda: reliability(np.array([0, -1]), np.full((2, 2), 0.5)), "unlabelled images left out"),
        (lambda: temperature(np.zeros((2, 2)), np.array([0, 5])), "labels are 0..1"),
        (lambda: temperature(np.full((2, 2), np.nan), np.array([0, 1])), "finite"),
        (lambda: temperature(np.zeros((2, 2)), np.full((2, 2), np.nan)), "all 4 cells are unknown"),
        (lambda: calibrated(np.zeros((2, 2)), temperature=0.0, multilabel=False), "above 0; got 0"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_with_the_reason(call, said):
    with pytest.raises(ValueError, match=said):
        call()
